// A plain matrix product under the name of oneDNN's, so that cuda_check can be linked for a machine
// that has a GPU but no oneDNN. Row-major, as oneDNN's.
#include <dnnl.h>

extern "C" dnnl_status_t dnnl_sgemm(char op_a, char op_b, dnnl_dim_t m, dnnl_dim_t n, dnnl_dim_t k,
                                    float alpha, const float* a, dnnl_dim_t lda, const float* b,
                                    dnnl_dim_t ldb, float beta, float* c, dnnl_dim_t ldc) {
#pragma omp parallel for
    for (dnnl_dim_t i = 0; i < m; ++i)
        for (dnnl_dim_t j = 0; j < n; ++j) {
            double sum = 0;
            for (dnnl_dim_t l = 0; l < k; ++l)
                sum += static_cast<double>(op_a == 'N' ? a[i * lda + l] : a[l * lda + i]) *
                       static_cast<double>(op_b == 'N' ? b[l * ldb + j] : b[j * ldb + l]);
            float& to = c[i * ldc + j];
            to = static_cast<float>(alpha * sum +
                                    (beta == 0.f ? 0. : static_cast<double>(beta * to)));
        }
    return dnnl_success;
}
