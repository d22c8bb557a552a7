// SPDX-License-Identifier: Apache-2.0
#include "train/compute.h"

#include "par/par.h"
#include "par/par_device.h"

static Err put_model(Compute *c)
{
    TRY(model_to_device(c->host, c->ctx.device, c->master, &c->on_device));
    return ctx_alloc(&c->ctx, &c->bad, 1, sizeof *c->bad);
}

static Err open_device(Compute *c)
{
    Device *const d = c->ctx.device = c->host->gpu;
    TRY(par_device_open(d));
    TRY(par_agree(put_model(c)));
    c->model = &c->on_device;
    c->memory = device_managed(d);
    c->source = &c->memory;
    return OK;
}

Err compute_open(Compute *c, Ctx *host, Model *master)
{
    *c = (Compute){.host = host, .ctx = *host, .master = master, .model = master};
    if (host->gpu) return open_device(c);
    return host->dtype == DT_BF16 ? model_pack_bf16(host, master) : OK;
}

void compute_close(Compute *c)
{
    if (compute_on_device(c)) {
        ctx_free(&c->ctx, c->bad);
        device_free(c->ctx.device, c->sum);
        device_free(c->ctx.device, c->grad);
        model_free(&c->on_device);
        par_device_close();
    }
    *c = (Compute){0};
}

Err compute_refresh(Compute *c)
{
    if (compute_on_device(c)) return par_agree(model_refresh(c->host, c->master, &c->on_device));
    return c->master->dtype == DT_BF16 ? model_pack_bf16(c->host, c->master) : OK;
}

static int64_t grad_bytes(const Compute *c) { return model_grad_elements(c->model) * (int64_t)sizeof *c->grad; }
static int64_t sum_bytes(const Compute *c) { return c->model->elements * (int64_t)sizeof *c->sum; }

// A gradient is zero when a row begins: op_fixed_add leaves it so, but for the head's part of a tied embedding.
Err compute_sum_begin(Compute *c)
{
    Device *const d = c->ctx.device;
    if (!c->grad) TRY(device_alloc(d, &c->grad, grad_bytes(c)));
    if (!c->sum) TRY(device_alloc(d, &c->sum, sum_bytes(c)));
    *c->bad = 0;
    TRY(device_zero(d, c->grad, grad_bytes(c)));
    return device_zero(d, c->sum, sum_bytes(c));
}

Err compute_sum_row(Compute *c)
{
    const int64_t n = c->model->elements;
    FixedAddArgs a = {c->grad, c->sum, n, c->bad};
    TRY(model_grad_fold(&c->ctx, c->model, c->grad));
    TRY(op_fixed_add(&c->ctx, &a));
    return device_zero(c->ctx.device, c->grad + n, grad_bytes(c) - n * (int64_t)sizeof *c->grad);
}
