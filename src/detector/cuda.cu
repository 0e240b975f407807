/* Launches of our operations, and products by cuBLAS with what follows them (bias, ReLU, residual) in the same pass. */
#include "detector/cuda.h"

#include <cublasLt.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdlib.h>

#include "detector/cuda_kernels.cuh"

/* What cuBLAS asks for on Hopper; a process has one for each of its detectors. */
static const size_t workspace_bytes = (size_t)32 << 20;

struct lb_cuda {
    int device;
    cudaStream_t stream;
    cublasLtHandle_t blas;
    void *workspace;
};

/* A product, ready to run. */
struct lb_product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algo;
    __half *bias; /* as f16, where the result is; own */
    bool finish;  /* bias, activation and residual by a kernel afterwards: cuBLAS has no algorithm with them */
};

static const char *text(cudaError_t status) {
    return status == cudaSuccess ? NULL : cudaGetErrorString(status);
}

static cudaDataType_t type_of(const ggml_tensor *t) {
    return t->type == GGML_TYPE_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static size_t rows_of(const ggml_tensor *t) {
    return (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
}

static size_t count(const ggml_tensor *t) {
    return (size_t)t->ne[0] * rows_of(t);
}

static unsigned blocks(size_t n, size_t per_block) {
    return (unsigned)((n + per_block - 1) / per_block);
}

static const char *check_launch(void) {
    return text(cudaGetLastError());
}

__global__ static void to_half_kernel(const float *from, __half *to, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        to[i] = __float2half_rn(from[i]);
}

template <typename V> static void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what, V value) {
    cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof value);
}

static void set(cublasLtMatmulPreference_t p, cublasLtMatmulPreferenceAttributes_t what, uint32_t value) {
    cublasLtMatmulPreferenceSetAttribute(p, what, &value, sizeof value);
}

/* ggml's ne = [in, out] and [in, rows] are column-major matrices: out = w' x. */
static const char *prepare_linear(lb_cuda *cuda, lb_op *op) {
    const ggml_tensor *x = op->src[0], *w = op->src[1], *out = op->node;
    const uint64_t n_in = (uint64_t)w->ne[0], n_out = (uint64_t)w->ne[1], n = rows_of(x);
    lb_product *p = (lb_product *)calloc(1, sizeof *p);
    if (!p)
        return "no memory";
    op->prepared = p;
    const cublasComputeType_t compute =
        w->type == GGML_TYPE_F32 && !op->exact ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasLtMatmulDescCreate(&p->desc, compute, CUDA_R_32F);
    set(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    cublasLtMatrixLayoutCreate(&p->w, type_of(w), n_in, n_out, (int64_t)n_in);
    cublasLtMatrixLayoutCreate(&p->x, type_of(x), n_in, n, (int64_t)n_in);
    cublasLtMatrixLayoutCreate(&p->out, type_of(out), n_out, n, (int64_t)n_out);
    if (op->bias) {
        const void *bias = op->bias->data;
        if (out->type == GGML_TYPE_F16) {
            cudaError_t status = cudaMalloc((void **)&p->bias, lb_op_prepared_bytes(op));
            if (status != cudaSuccess)
                return text(status);
            to_half_kernel<<<blocks(n_out, 128), 128, 0, cuda->stream>>>((const float *)bias, p->bias, (int)n_out);
            bias = p->bias;
        }
        set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
        set(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(out));
    }
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                         sizeof workspace_bytes);
    /* ggml's tensors begin at multiples of 128 bytes, and cuBLAS takes 256 for granted */
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, 128);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, 128);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, 128);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, 128);
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    for (int plain = 0; plain < 2 && !n_found; plain++) {
        const bool relu = op->act == LB_ACT_RELU && !op->residual;
        const cublasLtEpilogue_t epilogue = plain || !op->bias ? CUBLASLT_EPILOGUE_DEFAULT
                                            : relu             ? CUBLASLT_EPILOGUE_RELU_BIAS
                                                               : CUBLASLT_EPILOGUE_BIAS;
        p->finish = plain != 0;
        set(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
        if (cublasLtMatmulAlgoGetHeuristic(cuda->blas, p->desc, p->w, p->x, p->out, p->out, preference, 1, &found,
                                           &n_found) != CUBLAS_STATUS_SUCCESS)
            n_found = 0;
    }
    cublasLtMatmulPreferenceDestroy(preference);
    if (!n_found)
        return "cuBLAS has no algorithm for a product";
    p->algo = found.algo;
    return NULL;
}

static const char *linear(lb_cuda *cuda, lb_op *op) {
    const char *why = op->prepared ? NULL : prepare_linear(cuda, op);
    if (why)
        return why;
    const lb_product *p = (const lb_product *)op->prepared;
    ggml_tensor *out = op->node;
    /* after an activation a residual is added by the kernel below: no layer of the model has both */
    const bool in_product = op->residual && !p->finish && op->act == LB_ACT_NONE && type_of(op->residual) == type_of(out);
    const float one = 1.0f, beta = in_product ? 1.0f : 0.0f;
    const cublasStatus_t status =
        cublasLtMatmul(cuda->blas, p->desc, &one, op->src[1]->data, p->w, op->src[0]->data, p->x, &beta,
                       in_product ? op->residual->data : out->data, p->out, out->data, p->out, &p->algo, cuda->workspace,
                       workspace_bytes, cuda->stream);
    if (status != CUBLAS_STATUS_SUCCESS)
        return cublasLtGetStatusString(status);
    const float *bias = p->finish && op->bias ? (const float *)op->bias->data : NULL;
    const float *residual = op->residual && !in_product ? (const float *)op->residual->data : NULL;
    const bool act = op->act == LB_ACT_GELU || (op->act == LB_ACT_RELU && (p->finish || !op->bias || op->residual));
    if (!bias && !residual && !act)
        return NULL;
    const size_t n = count(out);
    if (out->ne[0] % 4 || (residual && out->type != GGML_TYPE_F32))
        return "a product of this shape is not supported";
    const int which = act ? op->act : LB_ACT_NONE;
    if (out->type == GGML_TYPE_F16)
        lb_finish_kernel<<<blocks(n, 1024), 256, 0, cuda->stream>>>((__half *)out->data, bias, residual,
                                                                     (int)out->ne[0], n, which);
    else
        lb_finish_kernel<<<blocks(n, 1024), 256, 0, cuda->stream>>>((float *)out->data, bias, residual, (int)out->ne[0],
                                                                     n, which);
    return check_launch();
}

template <typename T, int REGISTERS> static void norm_of(lb_cuda *cuda, const lb_op *op) {
    const ggml_tensor *out = op->node;
    const int merge = op->merge ? op->windows.width : 0, warps = REGISTERS > 32 ? 4 : 8;
    lb_norm_kernel<T, REGISTERS><<<blocks(rows_of(out), warps), warps * 32, 0, cuda->stream>>>(
        (const float *)op->src[0]->data, (const float *)op->src[1]->data, (const float *)op->src[2]->data,
        (T *)out->data, (int)out->ne[0], rows_of(out), op->eps, merge, op->windows.height);
}

template <typename T> static const char *norm(lb_cuda *cuda, const lb_op *op) {
    const int64_t n = op->node->ne[0];
    if (n <= 128)
        norm_of<T, 4>(cuda, op);
    else if (n <= 256)
        norm_of<T, 8>(cuda, op);
    else if (n <= 384)
        norm_of<T, 12>(cuda, op);
    else if (n <= 768)
        norm_of<T, 24>(cuda, op);
    else if (n <= 1536)
        norm_of<T, 48>(cuda, op);
    else if (n <= 4096)
        norm_of<T, 128>(cuda, op);
    else
        return "a norm of over 4096 channels is not supported";
    return check_launch();
}

template <typename T> static const char *cast(lb_cuda *cuda, const lb_op *op) {
    const ggml_tensor *x = op->src[0], *y = op->src[1];
    const size_t n = count(x), n_y = y ? count(y) : 4;
    if (n % 4 || n_y % 4 || x->type != GGML_TYPE_F32)
        return "a cast of this shape is not supported";
    lb_cast_kernel<<<blocks(n, 1024), 256, 0, cuda->stream>>>((const float *)x->data, y ? (const float *)y->data : NULL,
                                                               (T *)op->node->data, n, n_y);
    return check_launch();
}

template <typename T, int D, int CHUNK> static const char *windows_of(lb_cuda *cuda, const lb_op *op) {
    const int n = op->windows.window * op->windows.window, threads = ((n + 1) / 2 + 31) / 32 * 32;
    const int shared = lb_windows_shared(op->windows.window, D) * (int)sizeof(float);
    const ggml_tensor *qkv = op->src[0];
    cudaError_t status = cudaFuncSetAttribute(lb_windows_kernel<T, D, CHUNK>,
                                              cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
    if (status != cudaSuccess)
        return text(status);
    const dim3 grid((unsigned)(lb_windows_across(op->windows) * lb_windows_down(op->windows) * qkv->ne[2]),
                    (unsigned)op->n_heads);
    lb_windows_kernel<T, D, CHUNK><<<grid, threads, shared, cuda->stream>>>(
        (const T *)qkv->data, (const float *)op->src[1]->data, (const float *)op->src[2]->data, (T *)op->node->data,
        op->windows, op->n_heads, op->scale);
    return check_launch();
}

template <typename T> static const char *windows(lb_cuda *cuda, const lb_op *op) {
    const bool sevens = op->windows.window % 7 == 0;
    switch (op->node->ne[0] / op->n_heads) {
    case 12:
        return windows_of<T, 12, 8>(cuda, op);
    case 16:
        return windows_of<T, 16, 8>(cuda, op);
    case 24:
        return windows_of<T, 24, 8>(cuda, op);
    case 32:
        return sevens ? windows_of<T, 32, 7>(cuda, op) : windows_of<T, 32, 8>(cuda, op);
    default:
        return "windows with heads of this size are not supported";
    }
}

template <typename T> static const char *sample(lb_cuda *cuda, const lb_op *op) {
    const float *in[LB_SAMPLE_SRCS];
    for (int i = 0; i < LB_SAMPLE_SRCS; i++)
        in[i] = op->src[i] ? (const float *)op->src[i]->data : NULL;
    const T *value = (const T *)op->src[LB_SAMPLE_VALUE]->data;
    lb_sample_shape s = {};
    s.n_queries = (int)op->node->ne[1], s.n_images = (int)op->node->ne[2];
    s.n_tokens = (int)op->src[LB_SAMPLE_VALUE]->ne[1];
    s.n_heads = op->n_heads, s.d_head = (int)op->node->ne[0] / op->n_heads;
    s.n_points = op->n_points, s.n_levels = op->n_levels;
    s.n_places = (int)op->src[LB_SAMPLE_ORIGIN_X]->ne[3];
    for (int i = 0; i < op->n_levels; i++)
        s.level[i] = op->level[i];
    const int v = s.d_head % 8 == 0 ? 8 : 4;
    const size_t n = count(op->node) / v;
    T *out = (T *)op->node->data;
    if (v == 8)
        lb_sample_kernel<T, 8><<<blocks(n, 128), 128, 0, cuda->stream>>>(
            value, in[LB_SAMPLE_OFFSETS], in[LB_SAMPLE_WEIGHTS], in[LB_SAMPLE_ORIGIN_X], in[LB_SAMPLE_ORIGIN_Y],
            in[LB_SAMPLE_SCALE_X], in[LB_SAMPLE_SCALE_Y], in[LB_SAMPLE_KEEP], out, s);
    else
        lb_sample_kernel<T, 4><<<blocks(n, 128), 128, 0, cuda->stream>>>(
            value, in[LB_SAMPLE_OFFSETS], in[LB_SAMPLE_WEIGHTS], in[LB_SAMPLE_ORIGIN_X], in[LB_SAMPLE_ORIGIN_Y],
            in[LB_SAMPLE_SCALE_X], in[LB_SAMPLE_SCALE_Y], in[LB_SAMPLE_KEEP], out, s);
    return check_launch();
}

template <typename T> static const char *patches(lb_cuda *cuda, const lb_op *op) {
    const ggml_tensor *bytes = op->src[0];
    const size_t n = count(op->node);
    lb_patches_kernel<<<blocks(n, 256), 256, 0, cuda->stream>>>(
        (const unsigned char *)bytes->data, (const float *)op->src[1]->data, (const int *)op->src[2]->data,
        (T *)op->node->data, (int)bytes->ne[0] / 3, (int)bytes->ne[1], op->patch, n);
    return check_launch();
}

template <typename T> static const char *launch(lb_cuda *cuda, lb_op *op) {
    switch (op->kind) {
    case LB_OP_NORM:
        return norm<T>(cuda, op);
    case LB_OP_CAST:
        return cast<T>(cuda, op);
    case LB_OP_WINDOWS:
        return windows<T>(cuda, op);
    case LB_OP_SAMPLE:
        return sample<T>(cuda, op);
    case LB_OP_PATCHES:
        return patches<T>(cuda, op);
    default:
        return linear(cuda, op);
    }
}

const char *lb_cuda_launch(lb_cuda *cuda, lb_op *op) {
    cudaSetDevice(cuda->device);
    return op->node->type == GGML_TYPE_F16 ? launch<__half>(cuda, op) : launch<float>(cuda, op);
}

const char *lb_cuda_wait(lb_cuda *cuda) {
    return text(cudaStreamSynchronize(cuda->stream));
}

size_t lb_cuda_bytes(void) {
    return workspace_bytes;
}

lb_cuda *lb_cuda_open(const void *device_memory, const char **why) {
    cudaPointerAttributes attributes;
    *why = NULL;
    if (cudaPointerGetAttributes(&attributes, device_memory) != cudaSuccess ||
        attributes.type != cudaMemoryTypeDevice) {
        (void)cudaGetLastError();
        return NULL; /* another vendor's device */
    }
    lb_cuda *cuda = (lb_cuda *)calloc(1, sizeof *cuda);
    if (!cuda) {
        *why = "no memory";
        return NULL;
    }
    cuda->device = attributes.device;
    cudaSetDevice(cuda->device);
    *why = text(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    if (!*why)
        *why = text(cudaMalloc(&cuda->workspace, workspace_bytes));
    if (!*why && cublasLtCreate(&cuda->blas) != CUBLAS_STATUS_SUCCESS)
        *why = "cuBLAS cannot be started";
    if (!*why)
        return cuda;
    lb_cuda_close(cuda);
    return NULL;
}

void lb_cuda_release(lb_op *op) {
    lb_product *p = (lb_product *)op->prepared;
    if (!p)
        return;
    cudaFree(p->bias);
    if (p->desc)
        cublasLtMatmulDescDestroy(p->desc);
    for (cublasLtMatrixLayout_t layout : {p->w, p->x, p->out})
        if (layout)
            cublasLtMatrixLayoutDestroy(layout);
    free(p);
    op->prepared = NULL;
}

void lb_cuda_close(lb_cuda *cuda) {
    if (!cuda)
        return;
    if (cuda->blas)
        cublasLtDestroy(cuda->blas);
    cudaFree(cuda->workspace);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
}
