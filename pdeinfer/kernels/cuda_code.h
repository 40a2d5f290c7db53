// The interface of cuda_code.cc, which makes machine code of cuda_solver.cu.
#pragma once

#include "cuda_driver.h"
#include "onnxruntime.h"

namespace pdeinfer {

// Loads the kernels for a device: from the user's cache, or compiled and then cached. The result is the driver's handle
// of a library, which stays loaded. Threads may call it at the same time.
OrtStatus* load_kernels(const Driver& driver, int device, void** library);

// Returns null if the driver's result is 0, or an error that names the function.
OrtStatus* check(const Driver& driver, const char* function, int result);

}  // namespace pdeinfer
