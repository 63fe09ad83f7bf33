// Writes values on the GPU, on the default stream, so that a test sees whether an operation waits for it.

__global__ void fill(float* values, unsigned long count, float value) {
  const unsigned long i = blockIdx.x * static_cast<unsigned long>(blockDim.x) + threadIdx.x;
  if (i < count) values[i] = value;
}

void fill_on_gpu(float* values, unsigned long count, float value) {
  fill<<<static_cast<unsigned>((count + 255) / 256), 256>>>(values, count, value);
}
