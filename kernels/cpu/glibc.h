// Selects the old versions of functions that newer releases of glibc moved into libc under new versions. The old
// versions still exist and do the same, and a library that uses them also loads on an older system than the one that
// linked it. The build includes this file before all others.
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
