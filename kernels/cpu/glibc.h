// glibc gave these new versions when it moved them into libc; the old ones are there still, and do the same. With them a
// library that is linked on a new system loads on an old one. The build includes this before everything else.
#pragma once
#if defined(__linux__)
#include <features.h>
#endif

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
#if defined(__x86_64__)
#define OLD(name) __asm__(".symver " #name ", " #name "@GLIBC_2.2.5")
#else
#define OLD(name) __asm__(".symver " #name ", " #name "@GLIBC_2.17")
#endif
OLD(pthread_create);
OLD(pthread_join);
OLD(pthread_mutex_trylock);
OLD(pthread_sigmask);
#undef OLD
#endif
