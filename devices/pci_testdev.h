/*
 * The PCI test device that kvm-unit-tests drives (QEMU's docs/specs/pci-testdev): 1b36:0005 with a memory BAR of 4 KiB
 * and an I/O BAR of 256 ports. Each begins with a header that offers numbered tests: a width, an offset and data to
 * write there, and a counter of such writes. Three tests a BAR: byte, word and dword.
 *
 * Everything here is called under the device lock.
 */
#ifndef DEVICES_PCI_TESTDEV_H
#define DEVICES_PCI_TESTDEV_H

#include "devices/pci.h"

struct pci_testdev;

/* Plugged into `bus` at function 0 of `slot`. NULL: no memory, or the slot is taken. */
struct pci_testdev *pci_testdev_create(struct pci_bus *bus, unsigned slot);
/* Unplugs it as well. */
void pci_testdev_destroy(struct pci_testdev *testdev);
void pci_testdev_reset(struct pci_testdev *testdev);

#endif
