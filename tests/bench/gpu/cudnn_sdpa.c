// SPDX-License-Identifier: Apache-2.0
// cuDNN knows attention as a graph of small operations that it fuses into one kernel: it must look exactly as written here. Steps that
// fail are not reported one by one: the first failure is kept in the plan and all later steps do nothing.
#include "cudnn_sdpa.h"

#include <cudnn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef cudnnBackendDescriptor_t Desc;
// Of tensors in memory. ROW_SUMS and DQ_SUMS are cuDNN's, and lie in the workspace; the last ones are numbers.
enum { Q = 1, KEYS, V, O, LSE, DO, DQ, DK, DV, ROW_SUMS, DQ_SUMS, SCALE, MASKED, ONE, VIRTUAL };
enum { MOST = 160, MOST_OPS = 40, MOST_ENGINES = 16 };

struct CudnnSdpa {
    CudnnSdpaShape shape;
    cudnnHandle_t handle;  // NULL: planned for a described device
    Desc made[MOST], op[MOST_OPS], device, plan, pack;
    int count, ops;
    int64_t next;            // virtual tensor's id
    int64_t workspace, own;  // bytes: cuDNN's; of ROW_SUMS and DQ_SUMS behind it
    float scale, masked, one;
    cudnnStatus_t status;
    const char *what;
};

static bool good(CudnnSdpa *s, cudnnStatus_t status, const char *what)
{
    if (s->status == CUDNN_STATUS_SUCCESS && status != CUDNN_STATUS_SUCCESS) s->status = status, s->what = what;
    return s->status == CUDNN_STATUS_SUCCESS;
}

static Err told(const CudnnSdpa *s)
{
    char more[512] = "";
    if (s->status == CUDNN_STATUS_SUCCESS) return OK;
    cudnnGetLastErrorString(more, sizeof more);
    for (char *c = more; *c; c++)
        if (*c == '\n' || *c == '|') *c = ' ';
    CHECK(false, ERR_UNAVAILABLE, "cuDNN, %s: %s (%.300s)", s->what, cudnnGetErrorString(s->status), more);
    return OK;
}

// --- descriptors -------------------------------------------------------------------------------------------------------------

static Desc make(CudnnSdpa *s, cudnnBackendDescriptorType_t type)
{
    Desc d = NULL;
    if (!good(s, s->count < MOST ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_INTERNAL_ERROR, "descriptors")) return NULL;
    if (good(s, cudnnBackendCreateDescriptor(type, &d), "create")) s->made[s->count++] = d;
    return d;
}

static void set(CudnnSdpa *s, Desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
                const void *value)
{
    if (s->status == CUDNN_STATUS_SUCCESS) good(s, cudnnBackendSetAttribute(d, name, type, n, value), "attribute");
}

static void set_desc(CudnnSdpa *s, Desc d, cudnnBackendAttributeName_t name, Desc value)
{
    set(s, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finish(CudnnSdpa *s, Desc d, const char *what)
{
    if (s->status == CUDNN_STATUS_SUCCESS) good(s, cudnnBackendFinalize(d), what);
}

// --- tensors -----------------------------------------------------------------------------------------------------------------

typedef struct View {
    int64_t size[4], stride[4];  // 1, heads, rows, columns
} View;

// Contiguous [heads][rows][columns]
static View dense(int64_t heads, int64_t rows, int64_t cols)
{
    return (View){{1, heads, rows, cols}, {heads * rows * cols, rows * cols, cols, 1}};
}

// Of [T][heads][D] in memory
static View token_major(const CudnnSdpa *s, int64_t heads)
{
    const int64_t T = s->shape.T, D = s->shape.D;
    return (View){{1, heads, T, D}, {T * heads * D, D, heads * D, 1}};
}

static View turned(View v)
{
    return (View){{v.size[0], v.size[1], v.size[3], v.size[2]}, {v.stride[0], v.stride[1], v.stride[3], v.stride[2]}};
}

// id VIRTUAL: a value between two operations, never in memory.
static Desc tensor(CudnnSdpa *s, int64_t id, cudnnDataType_t type, View v)
{
    const bool between = id == VIRTUAL, number = id >= SCALE && id < VIRTUAL;
    const int64_t align = 16, uid = between ? s->next++ : id;
    Desc d = make(s, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(s, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(s, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, v.size);
    set(s, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, v.stride);
    set(s, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(s, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(s, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &between);
    set(s, d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &number);
    finish(s, d, "tensor");
    return d;
}

static Desc stored(CudnnSdpa *s, int64_t id, View v) { return tensor(s, id, CUDNN_DATA_BFLOAT16, v); }
static Desc number(CudnnSdpa *s, int64_t id) { return tensor(s, id, CUDNN_DATA_FLOAT, dense(1, 1, 1)); }
static Desc scores(CudnnSdpa *s) { return tensor(s, VIRTUAL, CUDNN_DATA_FLOAT, dense(s->shape.N, s->shape.T, s->shape.T)); }
static View one_a_row(const CudnnSdpa *s) { return dense(s->shape.N, s->shape.T, 1); }
static Desc row_value(CudnnSdpa *s) { return tensor(s, VIRTUAL, CUDNN_DATA_FLOAT, one_a_row(s)); }

// --- operations --------------------------------------------------------------------------------------------------------------

static void operation(CudnnSdpa *s, Desc op, const char *what)
{
    finish(s, op, what);
    if (good(s, s->ops < MOST_OPS ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_INTERNAL_ERROR, "operations")) s->op[s->ops++] = op;
}

// y = x mode b; t: which of x and b, where it is a choice. axis: of an index.
static Desc pointwise(CudnnSdpa *s, cudnnPointwiseMode_t mode, cudnnDataType_t math, int64_t axis, Desc x, Desc b, Desc t,
                      Desc y)
{
    Desc how = make(s, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(s, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(s, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &math);
    if (mode == CUDNN_POINTWISE_GEN_INDEX) set(s, how, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    finish(s, how, "pointwise");
    Desc op = make(s, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_desc(s, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_desc(s, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) set_desc(s, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    if (t) set_desc(s, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_desc(s, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    operation(s, op, "pointwise operation");
    return y;
}

static Desc combine(CudnnSdpa *s, cudnnPointwiseMode_t mode, Desc x, Desc b, Desc y)
{
    return pointwise(s, mode, CUDNN_DATA_FLOAT, 0, x, b, NULL, y);
}

static Desc multiply(CudnnSdpa *s, Desc a, Desc b, Desc c)
{
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    Desc how = make(s, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set(s, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    finish(s, how, "product");
    Desc op = make(s, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_desc(s, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_desc(s, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_desc(s, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_desc(s, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    operation(s, op, "product operation");
    return c;
}

// Over the dimensions in which y is smaller.
static Desc reduce(CudnnSdpa *s, cudnnReduceTensorOp_t by, Desc x, Desc y)
{
    const cudnnDataType_t type = CUDNN_DATA_FLOAT;
    Desc how = make(s, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    set(s, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(s, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &by);
    finish(s, how, "reduction");
    Desc op = make(s, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_desc(s, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_desc(s, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    set_desc(s, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    operation(s, op, "reduction operation");
    return y;
}

static Desc reshape(CudnnSdpa *s, Desc x, Desc y)
{
    Desc op = make(s, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_desc(s, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_desc(s, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    operation(s, op, "reshape operation");
    return y;
}

// Scores behind the diagonal become -inf.
static Desc causal(CudnnSdpa *s, Desc x)
{
    const View v = dense(s->shape.N, s->shape.T, s->shape.T);
    Desc row = tensor(s, VIRTUAL, CUDNN_DATA_INT32, v), col = tensor(s, VIRTUAL, CUDNN_DATA_INT32, v),
         keep = tensor(s, VIRTUAL, CUDNN_DATA_BOOLEAN, v);
    pointwise(s, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 2, x, NULL, NULL, row);
    pointwise(s, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, 3, x, NULL, NULL, col);
    pointwise(s, CUDNN_POINTWISE_CMP_GE, CUDNN_DATA_BOOLEAN, 0, row, col, NULL, keep);
    return pointwise(s, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, 0, x, number(s, MASKED), keep, scores(s));
}

// P = softmax(mask(scale Q K')), in bf16 for the second product O = P V; lse = max + log(sum).
static void forward(CudnnSdpa *s)
{
    const CudnnSdpaShape *a = &s->shape;
    Desc q = stored(s, Q, token_major(s, a->N)), k = stored(s, KEYS, turned(token_major(s, a->K))),
         v = stored(s, V, token_major(s, a->K));
    Desc x = combine(s, CUDNN_POINTWISE_MUL, multiply(s, q, k, scores(s)), number(s, SCALE), scores(s));
    x = causal(s, x);
    Desc most = reduce(s, CUDNN_REDUCE_TENSOR_MAX, x, row_value(s));
    Desc e = combine(s, CUDNN_POINTWISE_EXP, combine(s, CUDNN_POINTWISE_SUB, x, most, scores(s)), NULL, scores(s));
    Desc sum = reduce(s, CUDNN_REDUCE_TENSOR_ADD, e, row_value(s));
    combine(s, CUDNN_POINTWISE_ADD, most, combine(s, CUDNN_POINTWISE_LOG, sum, NULL, row_value(s)),
            tensor(s, LSE, CUDNN_DATA_FLOAT, one_a_row(s)));
    Desc p = combine(s, CUDNN_POINTWISE_DIV, e, sum, stored(s, VIRTUAL, dense(a->N, a->T, a->T)));
    multiply(s, p, v, stored(s, O, token_major(s, a->N)));
}

// The gradient of keys or values: p' x summed over the query heads that share them.
static void gradient(CudnnSdpa *s, Desc p, Desc x, int64_t id)
{
    const CudnnSdpaShape *a = &s->shape;
    Desc t = reshape(s, p, stored(s, VIRTUAL, turned(dense(a->N, a->T, a->T)))), y = stored(s, id, token_major(s, a->K));
    if (a->N == a->K) multiply(s, t, x, y);
    else reduce(s, CUDNN_REDUCE_TENSOR_ADD, multiply(s, t, x, stored(s, VIRTUAL, dense(a->N, a->T, a->D))), y);
}

// P again from scores and lse; dV = P' dO; dS = scale P (dO V' - rowsum(dO O)); dK = dS' Q; dQ = dS K.
static void backward(CudnnSdpa *s)
{
    const CudnnSdpaShape *a = &s->shape;
    const View heads = token_major(s, a->N), keys = token_major(s, a->K);
    Desc q = stored(s, Q, heads), k = stored(s, KEYS, turned(keys)), v = stored(s, V, turned(keys)),
         dout = stored(s, DO, heads), o = stored(s, O, heads);
    Desc scale = number(s, SCALE),
         product = combine(s, CUDNN_POINTWISE_MUL, dout, o, tensor(s, VIRTUAL, CUDNN_DATA_FLOAT, heads));
    Desc rows = combine(s, CUDNN_POINTWISE_MUL, reduce(s, CUDNN_REDUCE_TENSOR_ADD, product, row_value(s)), number(s, ONE),
                        tensor(s, ROW_SUMS, CUDNN_DATA_FLOAT, one_a_row(s)));
    Desc x = combine(s, CUDNN_POINTWISE_MUL, multiply(s, q, k, scores(s)), scale, scores(s));
    x = causal(s, combine(s, CUDNN_POINTWISE_SUB, x, tensor(s, LSE, CUDNN_DATA_FLOAT, one_a_row(s)), scores(s)));
    Desc p = combine(s, CUDNN_POINTWISE_EXP, x, NULL, scores(s));
    gradient(s, p, dout, DV);
    Desc d = combine(s, CUDNN_POINTWISE_SUB, multiply(s, dout, v, scores(s)), rows, scores(s));
    d = combine(s, CUDNN_POINTWISE_MUL, combine(s, CUDNN_POINTWISE_MUL, d, p, scores(s)), scale, scores(s));
    gradient(s, d, q, DK);
    Desc back = reshape(s, k, stored(s, VIRTUAL, keys)), dq = stored(s, DQ, heads);
    if (a->ordered) multiply(s, d, back, dq);
    else
        combine(s, CUDNN_POINTWISE_IDENTITY,
                multiply(s, d, back, tensor(s, DQ_SUMS, CUDNN_DATA_FLOAT, dense(a->N, a->T, a->D))), NULL, dq);
}

// --- the kernel --------------------------------------------------------------------------------------------------------------

static void on_device(CudnnSdpa *s, Desc d, cudnnBackendAttributeName_t handle, cudnnBackendAttributeName_t described)
{
    if (s->handle) set(s, d, handle, CUDNN_TYPE_HANDLE, 1, &s->handle);
    else set_desc(s, d, described, s->device);
}

// The first of the heuristic's candidates that can be built.
static void choose(CudnnSdpa *s, Desc graph)
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    Desc heuristic = make(s, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), config[MOST_ENGINES];
    int64_t n = 0;
    set_desc(s, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(s, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (!s->handle) set_desc(s, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, s->device);
    finish(s, heuristic, "heuristic");
    for (int i = 0; i < MOST_ENGINES; i++) config[i] = make(s, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (s->status != CUDNN_STATUS_SUCCESS ||
        !good(s,
              cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_ENGINES,
                                       &n, config),
              "engines"))
        return;
    cudnnStatus_t last = CUDNN_STATUS_NOT_SUPPORTED;
    for (int64_t i = 0; i < n; i++) {
        Desc plan = make(s, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
        set_desc(s, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config[i]);
        on_device(s, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP);
        if (s->status != CUDNN_STATUS_SUCCESS) return;
        last = cudnnBackendFinalize(plan);
        if (last != CUDNN_STATUS_SUCCESS) continue;
        s->plan = plan;
        good(s,
             cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &s->workspace),
             "workspace");
        return;
    }
    good(s, last, "no kernel for this shape");
}

static void plan(CudnnSdpa *s, const char *device)
{
    if (device) {
        s->device = make(s, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
        set(s, s->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(device), device);
        finish(s, s->device, "description of the device");
    } else {
        good(s, cudnnCreate(&s->handle), "cudnnCreate");
    }
    (s->shape.backward ? backward : forward)(s);
    Desc graph = make(s, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (s->handle) set(s, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &s->handle);
    set(s, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, s->ops, s->op);
    finish(s, graph, "graph");
    choose(s, graph);
}

Err cudnn_sdpa_plan(const CudnnSdpaShape *shape, const char *device, CudnnSdpa **out)
{
    CudnnSdpa *s = calloc(1, sizeof *s);
    *out = NULL;
    CHECK(s, ERR_UNAVAILABLE, "no memory for a plan of cuDNN's");
    s->shape = *shape, s->next = VIRTUAL, s->status = CUDNN_STATUS_SUCCESS;
    s->scale = shape->scale, s->masked = -INFINITY, s->one = 1;
    s->own = shape->backward ? 4 * shape->N * shape->T * (1 + (shape->ordered ? 0 : shape->D)) : 0;
    plan(s, device);
    const Err e = told(s);
    if (e != OK) return cudnn_sdpa_free(s), e;
    s->workspace = (s->workspace + 255) / 256 * 256;
    *out = s;
    return OK;
}

int64_t cudnn_sdpa_workspace(const CudnnSdpa *s) { return s->workspace + s->own; }

Err cudnn_sdpa_bind(CudnnSdpa *s, const CudnnSdpaTensors *t, void *workspace, void *stream)
{
    char *own = (char *)workspace + s->workspace;
    const int64_t uid[] = {Q, KEYS, V, O, LSE, SCALE, MASKED, DO, DQ, DK, DV, ROW_SUMS, ONE, DQ_SUMS};
    void *const at[] = {t->q,    t->k,  t->v,  t->o,  t->lse, &s->scale, &s->masked,
                        t->dout, t->dq, t->dk, t->dv, own,    &s->one,   own + 4 * s->shape.N * s->shape.T};
    const int64_t n = !s->shape.backward ? 7 : s->shape.ordered ? 13 : 14;
    s->pack = make(s, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(s, s->pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid);
    set(s, s->pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, at);
    set(s, s->pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    finish(s, s->pack, "pointers");
    if (s->status == CUDNN_STATUS_SUCCESS) good(s, cudnnSetStream(s->handle, stream), "stream");
    return told(s);
}

Err cudnn_sdpa_run(CudnnSdpa *s)
{
    good(s, cudnnBackendExecute(s->handle, s->plan, s->pack), "execute");
    return told(s);
}

void cudnn_sdpa_free(CudnnSdpa *s)
{
    if (!s) return;
    while (s->count > 0) (void)cudnnBackendDestroyDescriptor(s->made[--s->count]);
    if (s->handle) (void)cudnnDestroy(s->handle);
    free(s);
}

const char *cudnn_sdpa_version(void)
{
    static char text[40];
    const size_t v = cudnnGetVersion();
    snprintf(text, sizeof text, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    return text;
}
