// The parts of CUDA's driver and of NVRTC, its compiler, that the operator calls. They are found when the operator runs:
// it builds and loads without CUDA. The names, signatures and constants are those of NVIDIA's cuda.h and nvrtc.h.
#pragma once

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <initializer_list>

// The tests' build names a library that stands in for both.
#ifndef CUDA_DRIVER
#define CUDA_DRIVER "libcuda.so.1"
#endif
#ifndef NVRTC
#define NVRTC "libnvrtc.so.%d"
#endif

namespace pdeinfer {

struct Symbol {
  const char* name;
  void* function;  // a pointer to the pointer to the function
};

// Finds the symbols of a library. Returns the first that is missing, or null.
inline const char* find_symbols(void* library, std::initializer_list<Symbol> symbols) {
  for (const Symbol& symbol : symbols) {
    void* const found = dlsym(library, symbol.name);
    if (!found) return symbol.name;
    memcpy(symbol.function, &found, sizeof found);
  }
  return nullptr;
}

// The driver. Its functions return 0 or an error.
struct Driver {
  enum Attribute { kMultiprocessors = 16, kMajor = 75, kMinor = 76 };

  int (*initialize)(unsigned flags);
  int (*get_error_name)(int error, const char** name);
  int (*get_version)(int* version);  // of CUDA: 13010 is 13.1
  int (*get_device)(int* device, int ordinal);
  int (*get_attribute)(int* value, int attribute, int device);
  int (*load_library)(void** library, const void* code, int* options, void** values, unsigned num_options,
                      int* library_options, void** library_values, unsigned num_library_options);
  int (*get_kernel)(void** kernel, void* library, const char* name);
  int (*launch)(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra);

  // Returns what is missing, or null.
  const char* open() {
    void* const library = dlopen(CUDA_DRIVER, RTLD_NOW);
    if (!library) return CUDA_DRIVER;
    return find_symbols(library, {{"cuInit", &initialize},
                                  {"cuGetErrorName", &get_error_name},
                                  {"cuDriverGetVersion", &get_version},
                                  {"cuDeviceGet", &get_device},
                                  {"cuDeviceGetAttribute", &get_attribute},
                                  {"cuLibraryLoadData", &load_library},  // new in CUDA 12.0
                                  {"cuLibraryGetKernel", &get_kernel},
                                  {"cuLaunchKernel", &launch}});
  }
};

// The compiler. Its functions return 0 or an error.
struct Compiler {
  int (*get_version)(int* major, int* minor);
  const char* (*get_error_string)(int error);
  int (*create_program)(void** program, const char* source, const char* name, int num_headers,
                        const char* const* headers, const char* const* header_names);
  int (*compile_program)(void* program, int num_options, const char* const* options);
  int (*get_log_size)(void* program, size_t* size);
  int (*get_log)(void* program, char* log);
  int (*get_code_size)(void* program, size_t* size);
  int (*get_code)(void* program, char* code);
  int (*destroy_program)(void** program);

  // Opens the newest compiler that the driver supports. Returns what is missing, or null.
  const char* open(int driver_version) {
    void* library = nullptr;
    for (int major = driver_version / 1000; !library && major >= 12; --major) {
      char name[4096];
      snprintf(name, sizeof name, NVRTC, major);
      library = dlopen(name, RTLD_NOW);
    }
    if (!library) return "libnvrtc.so";
    const char* const missing = find_symbols(library, {{"nvrtcVersion", &get_version},
                                                       {"nvrtcGetErrorString", &get_error_string},
                                                       {"nvrtcCreateProgram", &create_program},
                                                       {"nvrtcCompileProgram", &compile_program},
                                                       {"nvrtcGetProgramLogSize", &get_log_size},
                                                       {"nvrtcGetProgramLog", &get_log},
                                                       {"nvrtcGetCUBINSize", &get_code_size},
                                                       {"nvrtcGetCUBIN", &get_code},
                                                       {"nvrtcDestroyProgram", &destroy_program}});
    if (!missing) open_builtins();
    return missing;
  }

 private:
  // NVRTC 13 opens its builtins by their bare name, and pip installs them in a folder that the loader does not search.
  void open_builtins() {
    Dl_info nvrtc;
    int major, minor;
    if (!dladdr(reinterpret_cast<void*>(get_version), &nvrtc) || get_version(&major, &minor)) return;
    const char* const slash = strrchr(nvrtc.dli_fname, '/');
    char path[4096];
    snprintf(path, sizeof path, "%.*slibnvrtc-builtins.so.%d.%d", slash ? int(slash + 1 - nvrtc.dli_fname) : 0,
             nvrtc.dli_fname, major, minor);
    dlopen(path, RTLD_NOW);
  }
};

}  // namespace pdeinfer
