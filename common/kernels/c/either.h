/* What C and CUDA C call differently. The headers that include it hold equations for both sides. */

#pragma once

#ifdef __CUDACC__
#define EITHER static __device__ __forceinline__
#else
#define EITHER static inline
#endif

#ifdef __CUDACC_RTC__ /* NVRTC has no headers of the system, but memcpy */
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#include <string.h>
#endif
