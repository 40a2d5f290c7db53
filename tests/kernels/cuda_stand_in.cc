// Stands in for CUDA's driver and NVRTC, without a GPU: it runs the kernels' own text on the CPU.
//
// The threads of a block take turns on one CPU thread and change at __syncthreads, in ascending or descending order: a
// missing barrier changes results. Shared memory and the output start as NaN. Access beyond a tensor, and writes beyond
// shared memory, are errors of the launch.
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(threads)

struct Dimensions {
  unsigned x, y, z;
};
static Dimensions threadIdx, blockIdx, blockDim;
static void __syncthreads();

#include "cuda_solver.cu"

constexpr int kLargestShared = 48 << 10;  // bytes
constexpr int kBeyond = 1024;             // floats after a block's shared memory that are watched
float shared[kLargestShared / sizeof(float) + kBeyond];

#define EXPORTED __attribute__((visibility("default")))
#define API extern "C" EXPORTED

// What tests set and read. tests/kernels/stand_in.py has its twin.
struct State {
  int major, minor, driver_version, multiprocessors, devices;
  int is_descending;       // order of threads
  int compile_error;       // of NVRTC, or 0
  int is_refusing_once;    // whether the driver refuses the next code
  int compilations, code_loads;
  int launches[3];         // of each kernel, as in kKernels
  Dimensions grid, block;  // of the last launch
};
EXPORTED State stand_in = {9, 0, 13010, 132, 1, 0, 0, 0, 0, 0, {}, {}, {}};

namespace {

using Function = void (*)(const pdeinfer::Layer);

struct Kernel {
  const char* name;
  Function function;
};
const Kernel kKernels[] = {
    {"solve_one_step", solve_one_step}, {"solve", solve}, {"step_in_global_memory", step_in_global_memory}};

enum Error {
  kInvalidValue = 1,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kNotFound = 500,
  kIllegalAddress = 700,
  kLaunchFailed = 719
};

std::string code_for_device() {
  return "\x7f" "ELF code for sm_" + std::to_string(stand_in.major) + std::to_string(stand_in.minor);
}

// The threads of a block. Each has a stack of its own.
class Threads {
 public:
  static constexpr int kMost = 1024;

  // Runs a block. Returns whether all its threads pass each barrier together, or end together.
  bool run(Function function, const pdeinfer::Layer& layer) {
    function_ = function;
    layer_ = &layer;
    const int count = blockDim.x * blockDim.y * blockDim.z;
    for (int i = 0; i < count; ++i) {
      has_ended_[i] = false;
      getcontext(&contexts_[i]);
      contexts_[i].uc_stack.ss_sp = &stacks_[i * kStack];
      contexts_[i].uc_stack.ss_size = kStack;
      contexts_[i].uc_link = nullptr;
      makecontext(&contexts_[i], enter, 0);
    }
    for (int waiting = count; waiting > 0;) {
      waiting = 0;
      for (int i = 0; i < count; ++i) {
        current_ = stand_in.is_descending ? count - 1 - i : i;
        threadIdx.x = current_ % blockDim.x;
        threadIdx.y = current_ / blockDim.x % blockDim.y;
        threadIdx.z = current_ / blockDim.x / blockDim.y;
        swapcontext(&scheduler_, &contexts_[current_]);
        waiting += !has_ended_[current_];
      }
      if (waiting != 0 && waiting != count) return false;
    }
    return true;
  }

  void wait() {
    const int thread = current_;
    swapcontext(&contexts_[thread], &scheduler_);
  }

 private:
  static constexpr int kStack = 64 << 10;

  static void enter();

  Function function_;
  const pdeinfer::Layer* layer_;
  int current_;
  bool has_ended_[kMost];
  ucontext_t scheduler_, contexts_[kMost];
  std::unique_ptr<char[]> stacks_{new char[kMost * kStack]};
};

Threads threads;

void Threads::enter() {
  threads.function_(*threads.layer_);
  threads.has_ended_[threads.current_] = true;
  threads.wait();
}

// A NaN that no kernel writes.
void mark(float* value) {
  const uint32_t bits = 0x7fc0beef;
  memcpy(value, &bits, sizeof bits);
}

bool is_marked(const float& value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits == 0x7fc0beef;
}

// A copy of a tensor between two pages that cannot be accessed. It ends where the second begins.
class Guarded {
 public:
  Guarded(const float* original, size_t count) : original_(const_cast<float*>(original)), bytes_(count * sizeof(float)) {
    const size_t page = sysconf(_SC_PAGESIZE), inner = (bytes_ + page - 1) / page * page;
    size_ = inner + 2 * page;
    memory_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(memory_ + page, inner, PROT_READ | PROT_WRITE);
    data = reinterpret_cast<float*>(memory_ + page + inner - bytes_);
    memcpy(data, original, bytes_);
  }
  ~Guarded() { munmap(memory_, size_); }
  Guarded(const Guarded&) = delete;

  void write_back() const { memcpy(original_, data, bytes_); }

  float* data;

 private:
  float* const original_;
  const size_t bytes_;
  size_t size_;
  char* memory_;
};

// Replaces the tensors of a layer by guarded copies while it lives.
class GuardedLayer {
 public:
  explicit GuardedLayer(const pdeinfer::Layer& original) : layer(original) {
    const size_t channels = layer.channels, values = channels * layer.images * layer.height * layer.width;
    const auto guard_coefficient = [&](pdeinfer::Coefficient& coefficient) {
      using pdeinfer::Coefficient;
      const size_t counts[] = {0, 1, values, 0, 9 * channels, 9 * channels};  // of each kind
      guard(&coefficient.values, counts[coefficient.kind]);
      guard(&coefficient.bias, coefficient.kind >= Coefficient::kConvolution ? channels : 0);
    };
    for (pdeinfer::Coefficient& coefficient : layer.coefficients) guard_coefficient(coefficient);
    guard_coefficient(layer.source);
    for (const float** tensor : {&layer.input, &layer.start, &layer.level, &layer.previous}) guard(tensor, values);
    for (const float** tensor : {&layer.scale, &layer.shift}) guard(tensor, channels);
    result_ = guard(const_cast<const float**>(layer.next ? &layer.next : &layer.output), values);
    if (!layer.next) {
      for (size_t i = 0; i < values; ++i) mark(&layer.output[i]);
    }
  }

  void write_back() const { result_->write_back(); }

  pdeinfer::Layer layer;

 private:
  const Guarded* guard(const float** tensor, size_t count) {
    if (!*tensor) return nullptr;
    std::unique_ptr<Guarded>& copy = copies_[*tensor];  // one for all uses: H[k+1] may replace H[k-1]
    if (!copy) copy = std::make_unique<Guarded>(*tensor, count);
    *tensor = copy->data;
    return copy.get();
  }

  std::map<const float*, std::unique_ptr<Guarded>> copies_;
  const Guarded* result_;
};

sigjmp_buf illegal_access;

int run_blocks(const Kernel& kernel, const pdeinfer::Layer& layer, unsigned blocks, unsigned shared_bytes) {
  if (sigsetjmp(illegal_access, 1)) return kIllegalAddress;
  const int granted = shared_bytes / sizeof(float);
  for (blockIdx = {}; blockIdx.x < blocks; ++blockIdx.x) {
    for (int i = 0; i < granted + kBeyond; ++i) mark(&shared[i]);
    if (!threads.run(kernel.function, layer)) return kLaunchFailed;
    for (int i = granted; i < granted + kBeyond; ++i) {
      if (!is_marked(shared[i])) return kIllegalAddress;
    }
  }
  return 0;
}

}  // namespace

void __syncthreads() { threads.wait(); }

API int cuInit(unsigned) { return 0; }

API int cuGetErrorName(int, const char** name) {
  *name = "CUDA_ERROR_OF_THE_STAND_IN";
  return 0;
}

API int cuDriverGetVersion(int* version) {
  *version = stand_in.driver_version;
  return 0;
}

API int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < stand_in.devices ? 0 : kInvalidDevice;
}

API int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 16: *value = stand_in.multiprocessors; return 0;
    case 75: *value = stand_in.major; return 0;
    case 76: *value = stand_in.minor; return 0;
    default: return kInvalidValue;
  }
}

API int cuLibraryLoadData(void** library, const void* code, int*, void**, unsigned, int*, void**, unsigned) {
  if (stand_in.is_refusing_once) {
    stand_in.is_refusing_once = false;
    return kInvalidImage;
  }
  const std::string expected = code_for_device();
  const bool is_ours = !memcmp(code, expected.data(), expected.size());
  const bool is_cuda = !memcmp(code, "\x7f" "ELF\x02", 5) && static_cast<const unsigned char*>(code)[18] == 190;
  if (!is_ours && !is_cuda) return kInvalidImage;
  ++stand_in.code_loads;
  *library = &threads;
  return 0;
}

API int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  for (const Kernel& known : kKernels) {
    if (library != &threads || strcmp(known.name, name)) continue;
    *kernel = const_cast<Kernel*>(&known);
    return 0;
  }
  return kNotFound;
}

API int cuLaunchKernel(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y,
                       unsigned z, unsigned shared_bytes, void*, void** arguments, void**) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  stand_in.grid = {grid_x, grid_y, grid_z};
  stand_in.block = blockDim = {x, y, z};
  if (!grid_x || grid_x > INT_MAX || grid_y != 1 || grid_z != 1) return kInvalidValue;
  if (!x || !y || !z || z > 64 || uint64_t{x} * y * z > Threads::kMost) return kInvalidValue;
  if (shared_bytes > kLargestShared) return kInvalidValue;
  const Kernel& known = *static_cast<const Kernel*>(kernel);
  ++stand_in.launches[&known - kKernels];
  const GuardedLayer guarded(*static_cast<const pdeinfer::Layer*>(arguments[0]));
  struct sigaction action = {}, earlier;
  action.sa_handler = [](int) { siglongjmp(illegal_access, 1); };
  sigaction(SIGSEGV, &action, &earlier);
  const int error = run_blocks(known, guarded.layer, grid_x, shared_bytes);
  sigaction(SIGSEGV, &earlier, nullptr);
  if (!error) guarded.write_back();
  return error;
}

API int nvrtcVersion(int* major, int* minor) {
  *major = stand_in.driver_version / 1000;
  *minor = 0;
  return 0;
}

API const char* nvrtcGetErrorString(int) { return "NVRTC_ERROR_OF_THE_STAND_IN"; }

API int nvrtcCreateProgram(void** program, const char* source, const char*, int num_headers, const char* const* headers,
                           const char* const* names) {
  *program = &threads;
  const bool is_complete = strstr(source, "solve_one_step") && num_headers == 1 && strstr(headers[0], "struct Layer") &&
                           strstr(source, names[0]);
  return !is_complete;
}

API int nvrtcCompileProgram(void*, int num_options, const char* const* options) {
  ++stand_in.compilations;
  char architecture[40];
  snprintf(architecture, sizeof architecture, "--gpu-architecture=sm_%d%d", stand_in.major, stand_in.minor);
  for (int i = 0; i < num_options; ++i) {
    if (!strcmp(options[i], architecture)) return stand_in.compile_error;
  }
  return 1;
}

API int nvrtcGetProgramLogSize(void*, size_t* size) {
  *size = sizeof "the log";
  return 0;
}

API int nvrtcGetProgramLog(void*, char* log) {
  strcpy(log, "the log");
  return 0;
}

API int nvrtcGetCUBINSize(void*, size_t* size) {
  *size = code_for_device().size();
  return 0;
}

API int nvrtcGetCUBIN(void*, char* code) {
  code_for_device().copy(code, std::string::npos);
  return 0;
}

API int nvrtcDestroyProgram(void** program) {
  *program = nullptr;
  return 0;
}
