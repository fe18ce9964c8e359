/*
 * The native addon: the functions that JavaScript calls, through Node-API version 8. The declarations are those of its documented
 * C interface. Addresses travel as doubles, which hold 48 bits exactly.
 */
#include "bodies.h"
#include "program.h"

typedef __SIZE_TYPE__ usize;
typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
typedef struct napi_callback_info__* napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
typedef int napi_status;
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define NAPI(FUNCTION)                                                                                     \
  FUNCTION(napi_get_cb_info, napi_env, napi_callback_info, usize*, napi_value*, napi_value*, void**)       \
  FUNCTION(napi_get_value_double, napi_env, napi_value, double*)                                           \
  FUNCTION(napi_create_double, napi_env, double, napi_value*)                                              \
  FUNCTION(napi_get_typedarray_info, napi_env, napi_value, int*, usize*, void**, napi_value*, usize*)      \
  FUNCTION(napi_create_function, napi_env, const char*, usize, napi_callback, void*, napi_value*)          \
  FUNCTION(napi_set_named_property, napi_env, napi_value, const char*, napi_value)
#if defined(_WIN32)
/* An import would name the program that has them, and in any other this addon could not be loaded: they are looked up instead. */
#define DECLARE(name, ...) static napi_status (*name)(__VA_ARGS__);
#define LOOK_UP(name, ...) name = host_function(#name);
#else
#define DECLARE(name, ...) napi_status name(__VA_ARGS__);
#define LOOK_UP(name, ...)
#endif
NAPI(DECLARE)

enum { MOST_ARGUMENTS = 5 };

/* The arguments as numbers; a typed array counts as the address of its first byte. Missing ones are 0. */
static void arguments_of(napi_env env, napi_callback_info info, double out[MOST_ARGUMENTS]) {
  usize count = MOST_ARGUMENTS;
  napi_value values[MOST_ARGUMENTS];
  napi_get_cb_info(env, info, &count, values, 0, 0);
  for (usize i = 0; i < MOST_ARGUMENTS; i++) {
    void* data = 0;
    out[i] = 0;
    if (i >= count || napi_get_value_double(env, values[i], &out[i]) == 0) continue;
    if (napi_get_typedarray_info(env, values[i], 0, 0, &data, 0, 0) == 0) out[i] = (double)(uptr)data;
  }
}

static napi_value number_value(napi_env env, double value) {
  napi_value result = 0;
  napi_create_double(env, value, &result);
  return result;
}

#define FUNCTION(name, result)                                       \
  static napi_value name(napi_env env, napi_callback_info info) {    \
    double a[MOST_ARGUMENTS];                                        \
    arguments_of(env, info, a);                                      \
    return number_value(env, (double)(result));                      \
  }

/* address(array) */
FUNCTION(js_address, a[0])
/* map(descriptor, bytes): the address of the file's bytes, 0 if it cannot be mapped */
FUNCTION(js_map, (uptr)map_file((i64)a[0], (u64)a[1]))
/* unmap(address, bytes) */
FUNCTION(js_unmap, (unmap_file((void*)(uptr)a[0], (u64)a[1]), 0))
/* hugePages(array, bytes) */
FUNCTION(js_huge_pages, (ask_for_huge_pages((void*)(uptr)a[0], (u64)a[1]), 0))
/* cores(array, bytes): how many cores the process may use, 0 where this system is not asked; the array is for the system's answer */
FUNCTION(js_cores, count_cores((void*)(uptr)a[0], (u64)a[1]))
/* available(body) */
FUNCTION(js_available, a[0] >= 0 && a[0] < BODIES && is_available((i32)a[0]))
/* work(control, worker, sequence, spins) */
FUNCTION(js_work, work((Control*)(uptr)a[0], &bodies[((Control*)(uptr)a[0])->body], (u32)a[1], (i32)a[2], (i32)a[3]))

EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  static const struct {
    const char* name;
    napi_callback function;
  } functions[] = {{"address", js_address}, {"map", js_map},     {"unmap", js_unmap},         {"hugePages", js_huge_pages},
                   {"cores", js_cores},     {"available", js_available}, {"work", js_work}};
#if defined(_WIN32)
  find_host(__builtin_return_address(0));
  NAPI(LOOK_UP)
#endif
  for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
    napi_value value;
    napi_create_function(env, functions[i].name, (usize)-1, functions[i].function, 0, &value);
    napi_set_named_property(env, exports, functions[i].name, value);
  }
  return exports;
}
EXPORT int node_api_module_get_api_version_v1(void) { return 8; }

#if defined(_WIN32)
int _fltused; /* the linker asks for it where floats are used */
#endif

#include "memory.h"
