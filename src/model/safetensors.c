// SPDX-License-Identifier: Apache-2.0
#include "model/safetensors.h"

#include <jansson.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/record.h"

enum { HEADER_MAX = 100000000, TENSORS_MAX = 1000000, INDEX_MAX = 1 << 28, NAME_MAX_BYTES = 1024 };

// --- number formats --------------------------------------------------------------------------------------------------

static const struct { const char *name; int size; DType dtype; bool readable; } formats[] = {
    {"F32", 4, DT_F32, true},   {"BF16", 2, DT_BF16, true}, {"F16", 2, DT_F16, true},   {"F64", 8, 0, false},
    {"BOOL", 1, 0, false},      {"U8", 1, 0, false},        {"I8", 1, 0, false},        {"F8_E4M3", 1, 0, false},
    {"F8_E5M2", 1, 0, false},   {"I16", 2, 0, false},       {"U16", 2, 0, false},       {"I32", 4, 0, false},
    {"U32", 4, 0, false},       {"I64", 8, 0, false},       {"U64", 8, 0, false},       {"C64", 8, 0, false},      {"F8_E8M0", 1, 0, false},
};
enum { FORMATS = sizeof formats / sizeof formats[0] };

int64_t dtype_size(DType dtype) { return dtype == DT_F32 ? 4 : 2; }

const char *dtype_name(DType dtype) { return dtype == DT_F32 ? "F32" : dtype == DT_BF16 ? "BF16" : "F16"; }

static float from_f16(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float v = exponent == 31  ? (fraction ? NAN : INFINITY)
              : exponent == 0 ? ldexpf((float)fraction, -24)
                              : ldexpf((float)(1024 + fraction), exponent - 25);
    return h & 0x8000 ? -v : v;
}

static uint16_t to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    float a = fabsf(f);
    if (!(a < 65520.0f)) return (uint16_t)(sign | (a != a ? 0x7e00 : 0x7c00));
    int exponent = 0;
    if (a > 0) frexpf(a, &exponent);  // a in [2^(e-1), 2^e)
    if (exponent < -13) exponent = -13;
    int64_t units = (int64_t)nearbyintf(ldexpf(a, 11 - exponent));  // ulp of this binade: 2^(e-11); 2048 carries over
    int64_t biased = exponent + 14;                                  // of a normal number
    if (units < 1024) return (uint16_t)(sign | units);               // subnormal, exponent field 0
    return (uint16_t)(sign | (((biased - 1) << 10) + units));
}

static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if (f != f) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

void st_encode(const float *x, int64_t n, DType dtype, void *out)
{
    uint16_t *half = out;
    if (dtype == DT_F32) memcpy(out, x, (size_t)n * 4);
    else if (dtype == DT_BF16) for (int64_t i = 0; i < n; i++) half[i] = to_bf16(x[i]);
    else for (int64_t i = 0; i < n; i++) half[i] = to_f16(x[i]);
}

void st_decode(const void *x, int64_t n, DType dtype, float *out)
{
    const char *p = x;  // tensors of a file need not be aligned
    uint16_t h;
    if (dtype == DT_F32) memcpy(out, x, (size_t)n * 4);
    else if (dtype == DT_BF16) for (int64_t i = 0; i < n; i++) memcpy(&h, p + 2 * i, 2), out[i] = from_bf16(h);
    else for (int64_t i = 0; i < n; i++) memcpy(&h, p + 2 * i, 2), out[i] = from_f16(h);
}

// All exponents at once: a loop without an exit, which the compiler turns into vector instructions.
static bool all_finite(const float *x, int64_t n)
{
    bool odd = false;
    for (int64_t i = 0; i < n; i++) odd |= !(fabsf(x[i]) <= FLT_MAX);
    return !odd;
}

Err st_read(const StTensor *t, int64_t first, int64_t n, float *out)
{
    ASSERT(t->readable && first >= 0 && n >= 0 && first + n <= t->n);
    st_decode(t->data + first * dtype_size(t->dtype), n, t->dtype, out);
    if (all_finite(out, n)) return OK;
    for (int64_t i = 0; i < n; i++)
        CHECK(isfinite(out[i]), ERR_DATA, "%s: tensor '%s', element %lld is %s; the file is damaged or training diverged",
              t->file, t->name, (long long)(first + i), isnan(out[i]) ? "NaN" : "Inf");
    return OK;
}

// --- one file --------------------------------------------------------------------------------------------------------

static Err read_shape(const json_t *shape, StTensor *t)
{
    CHECK(json_is_array(shape) && json_array_size(shape) <= ST_DIMS, ERR_DATA,
          "%s: tensor '%s': shape must be a list of at most %d numbers", t->file, t->name, ST_DIMS);
    t->dims = (int32_t)json_array_size(shape);
    t->n = 1;
    for (int32_t i = 0; i < t->dims; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        CHECK(json_is_integer(d) && json_integer_value(d) >= 0, ERR_DATA, "%s: tensor '%s': bad shape", t->file, t->name);
        t->dim[i] = json_integer_value(d);
        CHECK(!__builtin_mul_overflow(t->n, t->dim[i], &t->n), ERR_DATA, "%s: tensor '%s': shape is too large", t->file,
              t->name);
    }
    return OK;
}

static Err read_dtype(const char *name, StTensor *t, int64_t *size)
{
    for (int i = 0; i < FORMATS; i++) {
        if (strcmp(formats[i].name, name) != 0) continue;
        t->dtype = formats[i].dtype;
        t->readable = formats[i].readable;
        *size = formats[i].size;
        return OK;
    }
    FAIL(ERR_DATA, "%s: tensor '%s': unknown dtype '%s'", t->file, t->name, name);
}

// data, size: the data part of the file.
static Err read_tensor(const json_t *o, const char *data, int64_t size, StTensor *t)
{
    const json_t *offsets = json_object_get(o, "data_offsets"), *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    const char *dtype = json_string_value(json_object_get(o, "dtype"));
    CHECK(json_is_object(o) && dtype && json_array_size(offsets) == 2 && json_is_integer(b) && json_is_integer(e) &&
              json_object_size(o) == 3, ERR_DATA,
          "%s: tensor '%s': want exactly dtype, shape and data_offsets [begin, end]", t->file, t->name);
    int64_t begin = json_integer_value(b), end = json_integer_value(e), item = 0;
    CHECK(begin >= 0 && begin <= end && end <= size, ERR_DATA,
          "%s: tensor '%s': bytes %lld to %lld do not lie in the file's %lld", t->file, t->name, (long long)begin,
          (long long)end, (long long)size);
    TRY(read_dtype(dtype, t, &item));
    TRY(read_shape(json_object_get(o, "shape"), t));
    CHECK(!__builtin_mul_overflow(t->n, item, &t->bytes) && t->bytes == end - begin, ERR_DATA,
          "%s: tensor '%s': shape and dtype do not give the %lld bytes of data_offsets", t->file, t->name,
          (long long)(end - begin));
    t->data = data + begin;
    return OK;
}

static int by_place(const void *a, const void *b)
{
    const StTensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;  // empty ones may share a place
}

static int by_name(const void *a, const void *b)
{
    const StTensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

// No hole, no overlap, nothing behind the last tensor.
static Err check_cover(StTensor *t, int64_t n, const char *file, const char *data, int64_t size)
{
    const char *at = data;
    MEM_SORT(t, n, by_place);
    for (int64_t i = 0; i < n; i++) {
        CHECK(t[i].data == at, ERR_DATA, "%s: tensor '%s' %s", file, t[i].name,
              t[i].data > at ? "leaves a hole before it" : "overlaps the one before it");
        at += t[i].bytes;
    }
    CHECK(at == data + size, ERR_DATA, "%s: %lld bytes behind the last tensor", file, (long long)(data + size - at));
    return OK;
}

static Err check_metadata(const json_t *o, const char *file)
{
    const char *key;
    json_t *v;
    CHECK(json_is_object(o), ERR_DATA, "%s: __metadata__ must be an object of strings", file);
    json_object_foreach((json_t *)o, key, v) CHECK(json_is_string(v), ERR_DATA, "%s: __metadata__ '%s' must be a string",
                                                   file, key);
    return OK;
}

static Err add_tensors(StDir *d, const json_t *header, const char *file, const char *data, int64_t size)
{
    int64_t first = d->tensors, n = 0;
    StTensor *all;
    CHECK(first + (int64_t)json_object_size(header) <= TENSORS_MAX, ERR_DATA, "%s: more than %d tensors", file, TENSORS_MAX);
    TRY(MEM_ARRAY(&all, first + (int64_t)json_object_size(header)));
    if (first) memcpy(all, d->tensor, (size_t)first * sizeof *all);
    mem_free(d->tensor);
    d->tensor = all;
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)header, name, v)
    {
        if (!strcmp(name, "__metadata__")) {
            TRY(check_metadata(v, file));
            continue;
        }
        StTensor *t = &all[first + n];
        CHECK(strlen(name) <= NAME_MAX_BYTES, ERR_DATA, "%s: a tensor's name is over %d bytes", file, NAME_MAX_BYTES);
        char *copy;
        TRY(arena_strndup(&d->arena, &copy, name, (int64_t)strlen(name)));
        t->name = copy;
        t->file = file;
        TRY(read_tensor(v, data, size, t));
        n++;
    }
    d->tensors = first + n;
    return check_cover(all + first, n, file, data, size);
}

static Err parse_header(const char *file, FileMap map, json_t **out, int64_t *header)
{
    uint64_t n = 0;
    CHECK(map.size >= 8, ERR_DATA, "%s: too short for a safetensors file", file);
    for (int i = 7; i >= 0; i--) n = n << 8 | (unsigned char)map.p[i];
    CHECK(n <= HEADER_MAX && (int64_t)n <= map.size - 8, ERR_DATA,
          "%s: the header's length %llu is over the limit or the file is cut off", file, (unsigned long long)n);
    CHECK(n >= 2 && map.p[8] == '{', ERR_DATA, "%s: the header does not begin with '{'", file);
    json_error_t e;
    *out = json_loadb(map.p + 8, (size_t)n, JSON_REJECT_DUPLICATES, &e);
    CHECK(*out, ERR_DATA, "%s: header, byte %d: %s", file, e.position, e.text);
    *header = (int64_t)n;
    return OK;
}

static Err add_file(StDir *d, const char *path, const char *name)
{
    FileMap *map = &d->map[d->maps];
    json_t *header = NULL;
    int64_t n = 0;
    char *file;
    TRY(arena_strndup(&d->arena, &file, path, (int64_t)strlen(path)));
    Err err = io_map(path, map);
    if (err != OK) return err_context(err, "weights %s", name);
    d->maps++;
    err = parse_header(file, *map, &header, &n);
    if (err == OK) err = add_tensors(d, header, file, map->p + 8 + n, map->size - 8 - n);
    json_decref(header);
    return err == ERR_DATA ? err_add(err, "; copy or download the file again") : err;
}

// --- a directory -----------------------------------------------------------------------------------------------------

static Err end_open(StDir *d)
{
    MEM_SORT(d->tensor, d->tensors, by_name);
    for (int64_t i = 1; i < d->tensors; i++)
        CHECK(strcmp(d->tensor[i - 1].name, d->tensor[i].name) != 0, ERR_DATA, "tensor '%s' is in %s and in %s",
              d->tensor[i].name, d->tensor[i - 1].file, d->tensor[i].file);
    return OK;
}

Err st_open_file(const char *path, StDir *out)
{
    *out = (StDir){0};
    Err err = MEM_ARRAY(&out->map, 1);
    if (err == OK) err = add_file(out, path, path);
    if (err == OK) err = end_open(out);
    if (err != OK) st_close(out);
    return err;
}

static int compare_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

// The different file names of an index, sorted; the strings belong to `map`.
static Err shard_names(const json_t *map, const char *path, const char ***out, int64_t *n)
{
    const char *key;
    json_t *v;
    int64_t count = 0, kept = 0;
    const char **name;
    TRY(MEM_ARRAY(out, (int64_t)json_object_size(map) + 1));
    name = *out;
    json_object_foreach((json_t *)map, key, v)
    {
        const char *file = json_string_value(v);
        CHECK(file && *file && !strchr(file, '/') && !strstr(file, "..") && strlen(file) < 256, ERR_DATA,
              "%s: tensor '%s': '%s' is not a plain file name; keep the shards beside their index", path, key,
              file ? file : "(not a string)");
        name[count++] = file;
    }
    MEM_SORT(name, count, compare_text);
    for (int64_t i = 0; i < count; i++)
        if (!i || strcmp(name[kept - 1], name[i]) != 0) name[kept++] = name[i];
    *n = kept;
    return OK;
}

// Every tensor of the index must be in the shard that it names.
static Err check_index(const StDir *d, const json_t *map, const char *path)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)map, key, v)
    {
        const StTensor *t = st_find(d, key);
        CHECK(t && !strcmp(io_basename(t->file), json_string_value(v)), ERR_DATA,
              "%s: tensor '%s' is not in %s; copy or download both again", path, key, json_string_value(v));
    }
    return OK;
}

static Err open_shards(const char *dir, const char *path, const json_t *index, StDir *out)
{
    const json_t *map = json_object_get(index, "weight_map");
    const char **name = NULL;
    char file[IO_PATH];
    int64_t n = 0;
    Err err = OK;
    CHECK(json_is_object(map), ERR_DATA, "%s: no object weight_map; copy or download the file again", path);
    TRY_DONE(shard_names(map, path, &name, &n));
    TRY_DONE(MEM_ARRAY(&out->map, n + 1));
    for (int64_t i = 0; i < n; i++) {
        TRY_DONE(io_join(file, dir, name[i]));
        TRY_DONE(add_file(out, file, name[i]));
    }
    TRY_DONE(end_open(out));
    TRY_DONE(check_index(out, map, path));
done:
    mem_free(name);
    return err;
}

static Err open_index(const char *dir, const char *path, StDir *out)
{
    Str text = {0};
    json_t *index = NULL;
    Err err = OK;
    TRY_DONE(io_read(path, &text, INDEX_MAX));
    TRY_DONE(json_parse_file(&text, path, &index));
    TRY_DONE(open_shards(dir, path, index, out));
done:
    json_decref(index);
    str_free(&text);
    return err;
}

Err st_open(const char *dir, StDir *out)
{
    char path[IO_PATH], index[IO_PATH];
    *out = (StDir){0};
    TRY(io_join(path, dir, "model.safetensors"));
    TRY(io_join(index, dir, "model.safetensors.index.json"));
    if (io_exists(path)) return st_open_file(path, out);
    CHECK(io_exists(index), ERR_NOINPUT,
          "%s: neither model.safetensors nor model.safetensors.index.json is there; is it the model's directory?", dir);
    Err err = open_index(dir, index, out);
    if (err != OK) st_close(out);
    return err;
}

void st_close(StDir *d)
{
    for (int64_t i = 0; i < d->maps; i++) io_unmap(&d->map[i]);
    mem_free(d->map);
    mem_free(d->tensor);
    arena_free(&d->arena);
    *d = (StDir){0};
}

const StTensor *st_find(const StDir *d, const char *name)
{
    StTensor key = {.name = name};
    if (!d->tensors) return NULL;
    return bsearch(&key, d->tensor, (size_t)d->tensors, sizeof key, by_name);
}

// --- writing ---------------------------------------------------------------------------------------------------------

Err st_header(const StEntry *e, int64_t n, Str *out)
{
    Str text = {0};
    Err err = OK;
    int64_t at = 0;
    TRY_DONE(str_puts(&text, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (int64_t i = 0; i < n; i++) {
        int64_t end = at + e[i].n * dtype_size(e[i].dtype);
        TRY_DONE(str_printf(&text, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%lld", e[i].name, dtype_name(e[i].dtype),
                            (long long)e[i].dim[0]));
        if (e[i].dims == 2) TRY_DONE(str_printf(&text, ",%lld", (long long)e[i].dim[1]));
        TRY_DONE(str_printf(&text, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)end));
        at = end;
    }
    TRY_DONE(str_puts(&text, "}"));
    while (text.len % 8) TRY_DONE(str_puts(&text, " "));
    char length[8];
    for (int i = 0; i < 8; i++) length[i] = (char)((uint64_t)text.len >> 8 * i & 255);
    TRY_DONE(str_add(out, length, 8));
    TRY_DONE(str_add(out, text.p, text.len));
done:
    str_free(&text);
    return err;
}
