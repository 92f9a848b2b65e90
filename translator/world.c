/* Stopping vCPUs. */
#include "translator/engine.h"

void world_enter(struct engine *engine, struct cpu *cpu) {
    struct world *world = &engine->world;
    pthread_mutex_lock(&world->mutex);
    while (world->stopper && world->stopper != cpu)
        pthread_cond_wait(&world->changed, &world->mutex);
    world->running++;
    pthread_mutex_unlock(&world->mutex);
}

void world_leave(struct engine *engine) {
    struct world *world = &engine->world;
    pthread_mutex_lock(&world->mutex);
    world->running--;
    if (world->stopper)
        pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mutex);
}

void world_stop(struct engine *engine, struct cpu *cpu) {
    struct world *world = &engine->world;
    pthread_mutex_lock(&world->mutex);
    /* engine->lock lets only one through. */
    world->stopper = cpu ? cpu : (struct cpu *)world;
    for (unsigned i = 0; i < engine->vcpu_count && world->running; i++)
        if (engine->vcpu[i] && engine->vcpu[i] != cpu)
            engine_wake(engine->vcpu[i], REQUEST_SAFEPOINT);
    while (world->running)
        pthread_cond_wait(&world->changed, &world->mutex);
    pthread_mutex_unlock(&world->mutex);
}

void world_resume(struct engine *engine) {
    struct world *world = &engine->world;
    pthread_mutex_lock(&world->mutex);
    world->stopper = NULL;
    pthread_cond_broadcast(&world->changed);
    pthread_mutex_unlock(&world->mutex);
}
