// Compiled with -mavx2 -O3; runs only where the processor says so.
#define YUMOE_KERNEL_SET avx2
#include "ledger/row_kernels_impl.hpp"
