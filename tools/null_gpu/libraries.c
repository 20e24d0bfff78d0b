// cuDNN, cuBLAS, NCCL and the driver, as far as libtorch talks to them: what they compute is not computed, and a line says
// that it would have been. `run` adds functions that only have to be there.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void null_gpu_call(const char* name, void* stream);

struct Handle {
  void* stream;
  long room[64];
};

#if defined(CUBLAS)

int cublasCreate_v2(struct Handle** handle) { return *handle = calloc(1, sizeof **handle), 0; }
int cublasSetStream_v2(struct Handle* handle, void* stream) { return handle->stream = stream, 0; }
int cublasGetMathMode(struct Handle* handle, int* mode) { return *mode = 0; }
int cublasGetPointerMode_v2(struct Handle* handle, int* mode) { return *mode = 0; }

#elif defined(CUBLASLT)

size_t cublasLtGetVersion(void) { return 130100; }
int cublasLtMatmulDescCreate(void** made) { return *made = calloc(1, 512), 0; }
int cublasLtMatrixLayoutCreate(void** made) { return *made = calloc(1, 512), 0; }
int cublasLtMatmulPreferenceCreate(void** made) { return *made = calloc(1, 512), 0; }
int cublasLtMatmulAlgoGetHeuristic(
    void* handle, void* how, void* a, void* b, void* c, void* d, void* preference, int most, char* found, int* n) {
  memset(found, 0, 80);
  return *n = 1, 0;
}
int cublasLtMatmul(
    void* handle, void* how, void* alpha, void* a, void* of_a, void* b, void* of_b, void* beta, void* c, void* of_c,
    void* d, void* of_d, void* algorithm, void* workspace, size_t bytes, void* stream) {
  return null_gpu_call("cublasLtMatmul", stream), 0;
}

#elif defined(CUDNN)

size_t cudnnGetVersion(void) { return 91900; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char* cudnnGetErrorString(int error) { return "error of the null cuDNN"; }
void cudnnGetLastErrorString(char* text, size_t room) {
  if (room) *text = 0;
}
int cudnnCreate(struct Handle** handle) { return *handle = calloc(1, sizeof **handle), 0; }
int cudnnSetStream(struct Handle* handle, void* stream) { return handle->stream = stream, 0; }
int cudnnGetStream(struct Handle* handle, void** stream) { return *stream = handle->stream, 0; }

int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    void* handle, int mode, int ops, void* x, void* z, void* y, void* parameters, void* activation, size_t* bytes) {
  return *bytes = 0;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    void* handle, int mode, int ops, void* x, void* y, void* dy, void* dz, void* dx, void* parameters, void* activation,
    size_t* bytes) {
  return *bytes = 0;
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(
    void* handle, int mode, int ops, void* activation, void* x, size_t* bytes) {
  return *bytes = 0;
}

// Descriptors of the backend keep what they are told.
struct Attribute {
  int name, type;
  int64_t count;
  char data[4096];
};
struct Descriptor {
  int n;
  struct Attribute attributes[64];
};
enum { INT64 = 3, DOUBLE = 5, POINTER = 6, DESCRIPTOR = 15, CHARACTER = 24, FRACTION = 26 };

static size_t width(int type) {
  switch (type) {
    case 0: case INT64: case DOUBLE: case POINTER: case DESCRIPTOR: return 8;
    case 2: case CHARACTER: return 1;
    case FRACTION: return 16;
    default: return 4;
  }
}

// Attributes that are lists, which are empty: notes and knobs of engines, values between, and plans as text.
static int is_list(int name) {
  static const int lists[] = {302, 403, 404, 405, 1101, 1302, 1303, 1304, 1305};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    if (lists[i] == name) return 1;
  }
  return 0;
}

int cudnnBackendCreateDescriptor(int type, struct Descriptor** made) { return *made = calloc(1, sizeof **made), 0; }
int cudnnBackendFinalize(struct Descriptor* of) { return 0; }
int cudnnBackendDestroyDescriptor(struct Descriptor* of) { return free(of), 0; }
int cudnnBackendSetAttribute(struct Descriptor* of, int name, int type, int64_t count, const void* data) {
  if (of->n < 64 && data && count * width(type) <= sizeof of->attributes->data) {
    struct Attribute* kept = &of->attributes[of->n++];
    kept->name = name, kept->type = type, kept->count = count;
    memcpy(kept->data, data, count * width(type));
  }
  return 0;
}
int cudnnBackendGetAttribute(struct Descriptor* of, int name, int type, int64_t room, int64_t* count, void* data) {
  int64_t n = is_list(name) ? 0 : 1;
  const struct Attribute* kept = NULL;
  for (int i = 0; i < of->n; i++) {
    if (of->attributes[i].name == name) kept = &of->attributes[i];
  }
  if (kept) n = kept->count;
  if (count) *count = n;
  if (!data || !room || !n || (type == DESCRIPTOR && !kept)) return 0;
  if (kept) {
    memcpy(data, kept->data, (room < n ? room : n) * width(type));
  } else {
    memset(data, 0, width(type));
  }
  return 0;
}
int cudnnBackendExecute(struct Handle* handle, void* plan, void* pack) {
  return null_gpu_call("cudnnBackendExecute", handle->stream), 0;
}

#elif defined(NCCL)

struct Id {
  char bytes[128];
};
int ncclGetUniqueId(struct Id* id) { return memset(id, 7, sizeof *id), 0; }
int ncclCommInitRank(void** made, int n, struct Id id, int rank) { return *made = calloc(1, 4096), 0; }
int ncclCommGetAsyncError(void* of, int* error) { return *error = 0; }
const char* ncclGetErrorString(int error) { return "error of the null NCCL"; }
const char* ncclGetLastError(void* of) { return "error of the null NCCL"; }
int ncclGetVersion(int* version) { return *version = 22809, 0; }
int ncclAllReduce(void* from, void* to, size_t n, int type, int how, void* of, void* stream) {
  return null_gpu_call("ncclAllReduce", stream), 0;
}
int ncclAllGather(void* from, void* to, size_t n, int type, void* of, void* stream) {
  return null_gpu_call("ncclAllGather", stream), 0;
}
int ncclBroadcast(void* from, void* to, size_t n, int type, int root, void* of, void* stream) {
  return null_gpu_call("ncclBroadcast", stream), 0;
}

#elif defined(DRIVER)

#include "../../tests/stand_in/driver.c"

int cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }
int cuCtxGetCurrent(void** context) {
  static int one;
  return *context = &one, 0;
}
// What the run-time compiler asks for: a table of no more than its own size.
int cuGetExportTable(const void** table, const void* which) {
  static const size_t nothing[1] = {sizeof nothing};
  return *table = nothing, 0;
}

#endif
