// A stand-in for libcuda.so.1: what nct asks NVIDIA's driver before it loads libtorch's CUDA half.

#include <stdlib.h>
#include <string.h>

int cuInit(unsigned flags) { return flags; }

int cuDriverGetVersion(int *version) {
  const char *cuda = getenv("NCT_DRIVER_CUDA");
  *version = cuda ? atoi(cuda) : 13000;
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = 1;
  return 0;
}

int cuDeviceGet(int *device, int index) {
  *device = index;
  return index ? 101 : 0;
}

int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, "NVIDIA Pretend", length);
  return device;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  *bytes = (size_t)16 << 30;
  return device;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  const char *given = getenv("NCT_DRIVER_CAPABILITY");
  const int capability = given ? atoi(given) : 90;
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
  return device;
}

int cuGetErrorString(int code, const char **text) {
  *text = code ? "invalid device ordinal" : "no error";
  return 0;
}
