/* A stand-in for libnvidia-ml.so.1: two cards, one of them without an energy counter. */
#include <string.h>
static unsigned long long energy[2] = {0, 0};
static int fails = 0;
void stand_in_energy(unsigned long long value) { energy[1] = value; }
void stand_in_fails(int code) { fails = code; }
int nvmlInitWithFlags(unsigned int flags) { return fails; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "stand-in"; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (!strcmp(uuid, "GPU-00000000-0000-0000-0000-0000000000p1")) *device = &energy[0];
    else if (!strcmp(uuid, "GPU-00000000-0000-0000-0000-0000000000t4")) *device = &energy[1];
    else return 6; /* NVML_ERROR_NOT_FOUND */
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    if (fails) return fails;
    if (device == &energy[0]) return 3; /* NVML_ERROR_NOT_SUPPORTED */
    *millijoules = *(unsigned long long *)device;
    return 0;
}
