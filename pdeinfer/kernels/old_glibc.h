// Lets a library that is compiled with a new glibc run with those from 2.17 on.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// glibc 2.34 moved these functions into libc, under a new version; it has the old one too. With an older glibc they are
// in libdl and libpthread, which Python has loaded.
#if defined(__GLIBC__) && defined(__x86_64__)
#define PDEINFER_OLDEST(name) __asm__(".symver " #name ", " #name "@GLIBC_2.2.5")
#elif defined(__GLIBC__) && defined(__aarch64__)
#define PDEINFER_OLDEST(name) __asm__(".symver " #name ", " #name "@GLIBC_2.17")
#else
#define PDEINFER_OLDEST(name) static_assert(true, "")
#endif
PDEINFER_OLDEST(dladdr);
PDEINFER_OLDEST(dlopen);
PDEINFER_OLDEST(dlsym);
PDEINFER_OLDEST(pthread_once);

namespace pdeinfer {

// fstatat, which is a function since glibc 2.33 only.
inline int stat_at(int folder, const char* path, struct stat* status, int flags) {
#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
  return static_cast<int>(syscall(SYS_newfstatat, folder, path, status, flags));
#else
  return fstatat(folder, path, status, flags);
#endif
}

}  // namespace pdeinfer
