// Compiled for AVX-512; runs only where the processor says so.
#define YUMOE_KERNEL_SET avx512
#include "ledger/row_kernels_impl.hpp"
