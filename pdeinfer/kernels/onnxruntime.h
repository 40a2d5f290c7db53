// The part of ONNX Runtime's C interface that the operator uses, so that it compiles without ONNX Runtime's headers.
//
// ONNX Runtime guarantees that entries of these tables keep their positions: new versions only append. The names and
// signatures are those of onnxruntime_c_api.h (MIT License, Copyright (c) Microsoft Corporation).
// tests/packaging/test_kernel_build.py compares this file with that header.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct OrtAllocator;
struct OrtCustomOpDomain;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtMemoryInfo;
struct OrtSessionOptions;
struct OrtShapeInferContext;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

enum OrtErrorCode { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2, ORT_EP_FAIL = 11 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };
enum OrtCustomOpInputOutputCharacteristic { INPUT_OUTPUT_REQUIRED = 0, INPUT_OUTPUT_OPTIONAL = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };

struct OrtApi;

// What the runtime asks about an operator, as of version 17.
struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void* kernel, OrtKernelContext*);
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp*, size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp*, size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext*);
  OrtStatus* (*InferOutputShapeFn)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
};

// The entries from `first` up to, but not including, `next`.
#define ORT_SKIP(first, next) void* skipped_##first[(next) - (first)]

// The runtime's functions. Each returns null, or an error that the caller owns.
struct OrtApi {
  OrtStatus* (*CreateStatus)(OrtErrorCode, const char* message);
  ORT_SKIP(1, 26);
  OrtStatus* (*CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain**);
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain*, const OrtCustomOp*);
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions*, OrtCustomOpDomain*);
  ORT_SKIP(29, 51);
  OrtStatus* (*GetTensorMutableData)(OrtValue*, void** data);
  ORT_SKIP(52, 57);
  OrtStatus* (*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo**);
  OrtStatus* (*SetTensorElementType)(OrtTensorTypeAndShapeInfo*, ONNXTensorElementDataType);
  OrtStatus* (*SetDimensions)(OrtTensorTypeAndShapeInfo*, const int64_t* sides, size_t rank);
  ORT_SKIP(60, 61);
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t* rank);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t* sides, size_t rank);
  OrtStatus* (*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo*, const char** names, size_t rank);
  ORT_SKIP(64, 65);
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue*, OrtTensorTypeAndShapeInfo**);
  ORT_SKIP(66, 72);
  OrtStatus* (*MemoryInfoGetId)(const OrtMemoryInfo*, int* id);
  ORT_SKIP(73, 75);
  OrtStatus* (*AllocatorAlloc)(OrtAllocator*, size_t bytes, void** memory);
  OrtStatus* (*AllocatorFree)(OrtAllocator*, void* memory);
  OrtStatus* (*AllocatorGetInfo)(const OrtAllocator*, const OrtMemoryInfo**);
  ORT_SKIP(78, 85);
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo*, const char* name, float*);
  OrtStatus* (*KernelInfoGetAttribute_int64)(const OrtKernelInfo*, const char* name, int64_t*);
  ORT_SKIP(87, 90);
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext*, size_t index, const OrtValue**);
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext*, size_t index, const int64_t* sides, size_t rank, OrtValue**);
  ORT_SKIP(92, 93);
  void (*ReleaseStatus)(OrtStatus*);
  ORT_SKIP(94, 99);
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);
  ORT_SKIP(100, 101);
  void (*ReleaseCustomOpDomain)(OrtCustomOpDomain*);
  ORT_SKIP(102, 132);
  void (*ReleaseAllocator)(OrtAllocator*);
  ORT_SKIP(133, 193);
  OrtStatus* (*KernelContext_GetGPUComputeStream)(const OrtKernelContext*, void** stream);
  ORT_SKIP(194, 230);
  OrtStatus* (*KernelInfo_GetInputCount)(const OrtKernelInfo*, size_t*);
  ORT_SKIP(231, 232);
  OrtStatus* (*KernelInfo_GetInputName)(const OrtKernelInfo*, size_t index, char* name, size_t* size);
  ORT_SKIP(233, 249);
  OrtStatus* (*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo*, size_t index, int* is_constant,
                                                  const OrtValue**);
  ORT_SKIP(250, 268);
  OrtStatus* (*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext*, size_t index,
                                                    OrtTensorTypeAndShapeInfo**);
  ORT_SKIP(269, 270);
  OrtStatus* (*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext*, size_t index,
                                                     const OrtTensorTypeAndShapeInfo*);
  OrtStatus* (*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo*, const char** names, size_t rank);
  ORT_SKIP(272, 274);
  OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext*, void (*function)(void* data, size_t index),
                                          size_t count, size_t num_batch, void* data);
  ORT_SKIP(275, 277);
  OrtStatus* (*KernelContext_GetScratchBuffer)(const OrtKernelContext*, const OrtMemoryInfo*, size_t bytes,
                                               void** memory);
  OrtStatus* (*KernelInfoGetAllocator)(const OrtKernelInfo*, OrtMemType, OrtAllocator**);
};

#undef ORT_SKIP

// What a library is given when it is loaded.
struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null if the runtime is older
  const char* (*GetVersionString)();
};
