// SPDX-License-Identifier: Apache-2.0
#include "train/compute.h"

#include "kernels/cuda/device.h"
#include "par/par.h"

static Err open_device(Compute *c)
{
    Device *const d = c->ctx.device = c->host->gpu;
    TRY(par_agree(model_to_device(c->host, d, c->master, &c->on_device)));
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
    if (c->ctx.device) {
        device_free(c->ctx.device, c->grad);
        model_free(&c->on_device);
    }
    *c = (Compute){0};
}

Err compute_refresh(Compute *c)
{
    if (c->ctx.device) return par_agree(model_refresh(c->host, c->master, &c->on_device));
    return c->master->dtype == DT_BF16 ? model_pack_bf16(c->host, c->master) : OK;
}

static int64_t grad_bytes(const Compute *c) { return model_grad_elements(c->master) * (int64_t)sizeof(float); }

Err compute_grad_begin(Compute *c, float *host, float **grad)
{
    *grad = host;
    if (!c->ctx.device) return OK;
    if (!c->grad) TRY(device_alloc(c->ctx.device, &c->grad, grad_bytes(c)));
    *grad = c->grad;
    return device_zero(c->ctx.device, c->grad, grad_bytes(c));
}

Err compute_grad_end(Compute *c, float *host)
{
    return c->ctx.device ? device_get(c->ctx.device, host, c->grad, c->master->elements * (int64_t)sizeof(float)) : OK;
}
