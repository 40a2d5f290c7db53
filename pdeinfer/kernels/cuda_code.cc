// Makes machine code of cuda_solver.cu for the GPU that is there, and keeps it in the user's cache folder.
#include "cuda_code.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inputs.h"
#include "old_glibc.h"

namespace pdeinfer {
namespace {

// The build writes the two files as string literals.
const char kProgram[] =
#include "cuda_solver.cu.literal"
    ;
const char kHeader[] =
#include "cuda_layer.h.literal"
    ;

// FNV-1a, to tell texts apart and to find damaged files. The hash of a first part continues with that of a second.
uint64_t hash(const void* data, size_t size, uint64_t first = 0xcbf29ce484222325) {
  const unsigned char* const bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) first = (first ^ bytes[i]) * 0x100000001b3;
  return first;
}

// What machine code depends on.
struct Key {
  int major, minor;  // compute capability
  int driver_version;
  uint64_t text;
};

// Bytes in memory of their own.
struct Buffer {
  ~Buffer() { free(bytes); }
  char* bytes = nullptr;
  size_t size = 0;

  // Returns whether there is enough memory.
  bool allocate(size_t count) {
    free(bytes);
    bytes = static_cast<char*>(malloc(count));
    size = count;
    return bytes;
  }
};

// Finds or makes $XDG_CACHE_HOME/pdeinfer or ~/.cache/pdeinfer. Returns whether this user owns it.
bool make_cache_folder(char* folder, size_t size) {
  const char *base = getenv("XDG_CACHE_HOME"), *middle = "";
  if (!base || *base != '/') base = getenv("HOME"), middle = "/.cache";
  if (!base || *base != '/') return false;
  if (snprintf(folder, size, "%s%s/pdeinfer", base, middle) >= static_cast<int>(size)) return false;
  char* const last_slash = strrchr(folder, '/');
  *last_slash = 0;
  mkdir(folder, 0700);
  *last_slash = '/';
  mkdir(folder, 0700);
  struct stat status;
  if (stat_at(AT_FDCWD, folder, &status, AT_SYMLINK_NOFOLLOW)) return false;
  return S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

bool write_all(int file, const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size) {
    const ssize_t written = write(file, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes += written;
    size -= written;
  }
  return true;
}

bool read_all(int file, void* data, size_t size) {
  char* bytes = static_cast<char*>(data);
  while (size) {
    const ssize_t count = read(file, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes += count;
    size -= count;
  }
  return true;
}

// A file that keeps the code for a key: a header, then the code. Every failure means that there is no cache.
class CacheFile {
 public:
  explicit CacheFile(const Key& key) {
    header_ = {kFormat, key.text, key.major, key.minor, key.driver_version, 0, 0, 0};
    char folder[4000];
    if (!make_cache_folder(folder, sizeof folder)) return;
    snprintf(path_, sizeof path_, "%s/global-layer-sm_%d%d-cuda%d-%016llx.cubin", folder, key.major, key.minor,
             key.driver_version, static_cast<unsigned long long>(key.text));
  }

  // Returns whether there is intact code.
  bool read(Buffer* code) const {
    const int file = *path_ ? open(path_, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    if (file < 0) return false;
    const bool is_intact = read(file, code);
    close(file);
    return is_intact;
  }

  // Writes beside and renames: a reader never finds half a file.
  void write(const Buffer& code) const {
    if (!*path_) return;  // there is no folder
    char temporary[sizeof path_ + 8];
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", path_);
    const int file = mkostemp(temporary, O_CLOEXEC);  // mode 0600
    if (file < 0) return;
    const Header header = header_for(code);
    const bool is_written = write_all(file, &header, sizeof header) && write_all(file, code.bytes, code.size);
    if (close(file) || !is_written || rename(temporary, path_)) unlink(temporary);
  }

 private:
  static constexpr uint64_t kFormat = 1;
  static constexpr uint64_t kMostBytes = 16 << 20;

  struct Header {
    uint64_t format, text;
    int32_t major, minor, driver_version, padding;
    uint64_t size, hash;
  };

  Header header_for(const Buffer& code) const {
    Header header = header_;
    header.size = code.size;
    header.hash = hash(code.bytes, code.size);
    return header;
  }

  // Accepts only a file of this user that no one else may write.
  bool read(int file, Buffer* code) const {
    struct stat status;
    Header header;
    if (stat_at(file, "", &status, AT_EMPTY_PATH) || !S_ISREG(status.st_mode)) return false;
    if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH))) return false;
    if (!read_all(file, &header, sizeof header) || header.size > kMostBytes) return false;
    if (static_cast<uint64_t>(status.st_size) != sizeof header + header.size || !header.size) return false;
    if (!code->allocate(header.size) || !read_all(file, code->bytes, code->size)) return false;
    const Header expected = header_for(*code);
    return !memcmp(&header, &expected, sizeof header);
  }

  Header header_;
  char path_[4096] = "";  // empty if there is no folder
};

OrtStatus* compile(const Key& key, Buffer* code) {
  Compiler compiler;
  if (const char* missing = compiler.open(key.driver_version)) return device_error("there is no %s", missing);
  void* program = nullptr;
  const char *headers[] = {kHeader}, *names[] = {"cuda_layer.h"};
  int error = compiler.create_program(&program, kProgram, "cuda_solver.cu", 1, headers, names);
  if (error) return device_error("nvrtcCreateProgram returns %s", compiler.get_error_string(error));
  char architecture[40];
  snprintf(architecture, sizeof architecture, "--gpu-architecture=sm_%d%d", key.major, key.minor);
  const char* options[] = {architecture, "--std=c++17"};
  OrtStatus* status = nullptr;
  size_t size = 0;
  if ((error = compiler.compile_program(program, 2, options))) {
    Buffer log;
    const bool has_log = !compiler.get_log_size(program, &size) && size && log.allocate(size) &&
                         !compiler.get_log(program, log.bytes);
    status = device_error("NVRTC cannot compile the kernels for sm_%d%d: %s: %.300s", key.major, key.minor,
                          compiler.get_error_string(error), has_log ? log.bytes : "no log");
  } else if (compiler.get_code_size(program, &size) || !size || !code->allocate(size) ||
             compiler.get_code(program, code->bytes)) {
    status = device_error("NVRTC gives no code for sm_%d%d", key.major, key.minor);
  }
  compiler.destroy_program(&program);
  return status;
}

int load(const Driver& driver, const Buffer& code, void** library) {
  return driver.load_library(library, code.bytes, nullptr, nullptr, 0, nullptr, nullptr, 0);
}

OrtStatus* load_or_compile(const Driver& driver, const Key& key, void** library) {
  const CacheFile file(key);
  Buffer code;
  if (file.read(&code) && !load(driver, code, library)) return nullptr;
  RETURN_IF_ERROR(compile(key, &code));
  RETURN_IF_ERROR(check(driver, "cuLibraryLoadData", load(driver, code, library)));
  file.write(code);
  return nullptr;
}

struct Loaded {
  int major, minor;
  void* library;
  Loaded* next;
};

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
Loaded* all_loaded;  // a driver's library serves every device of its compute capability

OrtStatus* load_once(const Driver& driver, const Key& key, void** library) {
  for (const Loaded* loaded = all_loaded; loaded; loaded = loaded->next) {
    if (loaded->major != key.major || loaded->minor != key.minor) continue;
    *library = loaded->library;
    return nullptr;
  }
  RETURN_IF_ERROR(load_or_compile(driver, key, library));
  Loaded* const loaded = static_cast<Loaded*>(malloc(sizeof(Loaded)));
  if (!loaded) return out_of_memory();
  *loaded = {key.major, key.minor, *library, all_loaded};
  all_loaded = loaded;
  return nullptr;
}

}  // namespace

OrtStatus* check(const Driver& driver, const char* function, int result) {
  if (!result) return nullptr;
  const char* name = nullptr;
  if (driver.get_error_name(result, &name) || !name) name = "an unknown error";
  return device_error("%s returns %s (%d)", function, name, result);
}

OrtStatus* load_kernels(const Driver& driver, int device, void** library) {
  Key key{};
  RETURN_IF_ERROR(check(driver, "cuDriverGetVersion", driver.get_version(&key.driver_version)));
  RETURN_IF_ERROR(
      check(driver, "cuDeviceGetAttribute", driver.get_attribute(&key.major, Driver::kMajor, device)));
  RETURN_IF_ERROR(
      check(driver, "cuDeviceGetAttribute", driver.get_attribute(&key.minor, Driver::kMinor, device)));
  key.text = hash(kHeader, sizeof kHeader, hash(kProgram, sizeof kProgram));
  pthread_mutex_lock(&mutex);
  OrtStatus* const status = load_once(driver, key, library);
  pthread_mutex_unlock(&mutex);
  return status;
}

}  // namespace pdeinfer
