/* What may be wrong with an argument, by its kind. Every macro starts from a valid call, `FUNCTION_valid`, and changes
 * one argument; the generated cases name functions and parameters. */
#ifndef MISUSE_H
#define MISUSE_H

#include "world.h"

enum { HANDLES = 4 };
static const uint32_t TOKENS[] = {300, 301, 302};
static const char SALT[] = "tenant";

#define LENGTH_OF(array) (sizeof(array) / sizeof *(array))

/* The call is refused, its message names the culprit, its outputs are untouched. */
#define REFUSED(function, parameter, misuse, change, status, culprit)  \
    do {                                                               \
        reset();                                                       \
        begin(#function, parameter, misuse);                           \
        function##_arguments a = function##_valid();                   \
        change;                                                        \
        refused(function##_call(&a), TRTLLM_STATUS_##status, culprit); \
    } while (0)

/* The call, or else the submission of the request that it changed, is refused. */
#define REFUSED_LATER(function, parameter, misuse, change, status, culprit)         \
    do {                                                                            \
        reset();                                                                    \
        begin(#function, parameter, misuse);                                        \
        function##_arguments a = function##_valid();                                \
        change;                                                                     \
        refused_now_or_later(function##_call(&a), TRTLLM_STATUS_##status, culprit); \
    } while (0)

/* The call succeeds; what it returned is destroyed. */
#define ACCEPTED(function, parameter, use, change)   \
    do {                                             \
        reset();                                     \
        begin(#function, parameter, use);            \
        function##_arguments a = function##_valid(); \
        change;                                      \
        accepted(function##_call(&a));               \
        function##_release(&a);                      \
        renew();                                     \
    } while (0)

/* Pointers. */
static inline void *misaligned(const void *pointer) {
    return (void *)((uintptr_t)pointer - 1);
}

#define NULL_POINTER(function, parameter) \
    REFUSED(function, #parameter, "NULL", a.parameter = NULL, INVALID_ARGUMENT, "`" #parameter "`: is NULL")
#define MISALIGNED(function, parameter)                                                                  \
    REFUSED(function, #parameter, "misaligned", a.parameter = misaligned(a.parameter), INVALID_ARGUMENT, \
            "`" #parameter "`: is not aligned")

/* Handles: those of other types, destroyed ones, numbers, real addresses, and the living one with any bit turned. */
enum { NUMBERS = 8, WRONG_HANDLES = 2 * KINDS + NUMBERS + 64 };

static inline void *wrong_handle(size_t kind, size_t i) {
    static int in_the_data;
    const uintptr_t numbers[NUMBERS] = {1,
                                        2,
                                        0xdeadbeef,
                                        world.on_the_stack,
                                        world.on_the_stack + 1,
                                        (uintptr_t)&in_the_data,
                                        (uintptr_t)INTPTR_MAX,
                                        UINTPTR_MAX};
    if (i < KINDS) return i == kind ? world.destroyed[kind] : living(i);
    if (i < 2 * KINDS) return world.destroyed[i - KINDS];
    if (i < 2 * KINDS + NUMBERS) return (void *)numbers[i - 2 * KINDS];
    return (void *)((uintptr_t)living(kind) ^ (uintptr_t)1 << (i - 2 * KINDS - NUMBERS));
}

static inline const char *name_of_wrong_handle(size_t i) {
    static char name[32];
    snprintf(name, sizeof name, "wrong handle %zu", i);
    return name;
}

#define HANDLE(function, parameter, kind)                                                                       \
    for (size_t i = 0; i < WRONG_HANDLES; i++)                                                                  \
    REFUSED(function, #parameter, name_of_wrong_handle(i), a.parameter = wrong_handle(kind, i), INVALID_HANDLE, \
            "`" #parameter "`: this trtllm_")

/* Texts and lengths. */
static const char *const not_utf8[] = {"\xff",     "a\x80",        "\xc3",         "\xc3(",    "\xc0\xaf",
                                       "\xe2\x82", "\xed\xa0\x80", "\xf0\x9f\x98", "ok\xe0 b", "\xf4\x90\x80\x80"};
static const size_t absurd_lengths[] = {((size_t)16 << 20) + 1, (size_t)1 << 40,  (size_t)1 << 62, SIZE_MAX / 4 + 1,
                                        SIZE_MAX / 2,           SIZE_MAX / 2 + 1, SIZE_MAX - 1,    SIZE_MAX};

#define LENGTHS(function, array, length, culprit)          \
    for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++) \
    REFUSED(function, #length, "absurd length", a.length = absurd_lengths[i], INVALID_ARGUMENT, culprit)

#define NULL_WITH_LENGTH(function, array, length)                                                     \
    REFUSED(function, #array, "NULL with a length", (a.array = NULL, a.length = 1), INVALID_ARGUMENT, \
            "`" #array "`: is NULL")

#define NOT_UTF8(function, text, size)                                                                         \
    for (size_t i = 0; i < LENGTH_OF(not_utf8); i++)                                                           \
    REFUSED(function, #text, "not UTF-8", (a.size = strlen(not_utf8[i]), a.text = input(not_utf8[i], a.size)), \
            INVALID_ARGUMENT, "`" #text "`: is not UTF-8")

/* Strings that end with a NUL. */
#define STRING_NOT_UTF8(function, text)              \
    for (size_t i = 0; i < LENGTH_OF(not_utf8); i++) \
    REFUSED(function, #text, "not UTF-8", a.text = string(not_utf8[i]), INVALID_ARGUMENT, "`" #text "`: is not UTF-8")

static inline char *string(const char *text) {
    return input(text, strlen(text) + 1);
}

/* A name of one byte more than is allowed, and no NUL before the end of what may be read. */
static inline char *endless_name(void) {
    static char name[4097];
    memset(name, 'a', sizeof name);
    return input(name, sizeof name);
}

/* The same for a text. */
static inline char *endless_text(void) {
    static unsigned char *end;
    const size_t most = (size_t)16 << 20;
    if (end == NULL) {
        end = guarded(most + PAGE);
        memset(end - most - 1, 'a', most + 1);
    }
    return (char *)end - most - 1;
}

#define NAME(function, text)                                                                           \
    REFUSED(function, #text, "empty", a.text = string(""), INVALID_ARGUMENT, "`" #text "`: is empty"); \
    REFUSED(function, #text, "endless", a.text = endless_name(), INVALID_ARGUMENT, "`" #text "`: is longer than 4096")

#define NO_FILE(function, path) \
    REFUSED(function, #path, "no such file", a.path = string("no/such/file"), NOT_FOUND, "no/such/file")
#define NO_FOLDER(function, path) \
    REFUSED(function, #path, "no such folder", a.path = string("/no/such/file"), NOT_FOUND, "/no/such")
#define ENDLESS_TEXT(function, text) \
    REFUSED(function, #text, "endless", a.text = endless_text(), INVALID_ARGUMENT, "`" #text "`: is longer than")

/* Messages of a chat. */
static inline const char *nested(void) {
    static char text[1 << 16];
    memset(text, '[', sizeof text);
    return text;
}

#define NOT_MESSAGES(function, text, size)                                                                    \
    do {                                                                                                      \
        const char *const wrong_messages[] = {"x", "{", "[{]", "[{\"role\": \"\\ud800\"}]", "[1e999]"};       \
        for (size_t i = 0; i < LENGTH_OF(wrong_messages); i++)                                                \
            REFUSED_LATER(function, #text, wrong_messages[i],                                                 \
                          (a.size = strlen(wrong_messages[i]), a.text = input(wrong_messages[i], a.size)),    \
                          INVALID_ARGUMENT, "messages");                                                      \
        REFUSED_LATER(function, #text, "deeply nested", (a.size = 1 << 16, a.text = input(nested(), a.size)), \
                      INVALID_ARGUMENT, "messages");                                                          \
    } while (0)

/* Arrays of names. */
static inline const char *const *names(const char *name) {
    return input(&name, sizeof name);
}

#define NAMES(function, array, length)                                                                               \
    NULL_WITH_LENGTH(function, array, length);                                                                       \
    LENGTHS(function, array, length, "`" #array "`");                                                                \
    MISALIGNED(function, array);                                                                                     \
    REFUSED(function, #array, "NULL in it", a.array = names(NULL), INVALID_ARGUMENT, "`" #array "[0]`: is NULL");    \
    REFUSED(function, #array, "empty name", a.array = names(string("")), INVALID_ARGUMENT,                           \
            "`" #array "[0]`: is empty");                                                                            \
    REFUSED(function, #array, "not UTF-8", a.array = names(string("\xff")), INVALID_ARGUMENT, "`" #array "[0]`");    \
    REFUSED(function, #array, "endless name", a.array = names(endless_name()), INVALID_ARGUMENT, "`" #array "[0]`"); \
    REFUSED(function, #array, "unknown name", a.array = names(string("no_such")), INVALID_ARGUMENT, "no_such")

/* Numbers. */
static const int32_t no_flags[] = {-1, 2, 3, 256, 65536, INT32_MIN, INT32_MAX};

#define FLAG(function, parameter)                    \
    for (size_t i = 0; i < LENGTH_OF(no_flags); i++) \
    REFUSED(function, #parameter, "neither 0 nor 1", a.parameter = no_flags[i], INVALID_ARGUMENT, "`" #parameter "`")

#define REQUEST_ID(function, id)                                                                         \
    REFUSED(function, #id, "never given", a.id = UINT64_MAX, NOT_FOUND, "request 18446744073709551615"); \
    REFUSED(function, #id, "never given", a.id = (uint64_t)1 << 40, NOT_FOUND, "request 1099511627776")

#define TIMEOUT(function, timeout)                                                                             \
    REFUSED(function, #timeout, "-2", a.timeout = -2, INVALID_ARGUMENT, "`" #timeout "`: is -2");              \
    REFUSED(function, #timeout, "least", a.timeout = INT64_MIN, INVALID_ARGUMENT, "`" #timeout "`: is -9223"); \
    ACCEPTED(function, #timeout, "most", (a.request_id = submitted(), a.timeout = INT64_MAX))

#define MILLISECONDS(function, parameter)                                     \
    do {                                                                      \
        reset();                                                              \
        begin(#function, #parameter, "most");                                 \
        accepted(function(world.request, UINT64_MAX));                        \
        uint64_t id;                                                          \
        accepted(trtllm_executor_submit(world.executor, world.request, &id)); \
        finish(id, NULL);                                                     \
        renew();                                                              \
    } while (0)

#define TOKEN_ID(function, token)                                                                           \
    REFUSED_LATER(function, #token, "most", a.token = UINT32_MAX, INVALID_ARGUMENT, "token id 4294967295"); \
    REFUSED_LATER(function, #token, "sign bit", a.token = 1u << 31, INVALID_ARGUMENT, "token id 2147483648")

#define BIAS(function, bias)                                                       \
    REFUSED_LATER(function, #bias, "NAN", a.bias = NAN, INVALID_ARGUMENT, "bias"); \
    REFUSED_LATER(function, #bias, "INFINITY", a.bias = INFINITY, INVALID_ARGUMENT, "bias")

#define VERSION(function, part)                                                            \
    REFUSED(function, #part, "next", a.part += 1, UNSUPPORTED_VERSION, "the library is "); \
    REFUSED(function, #part, "most", a.part = UINT32_MAX, UNSUPPORTED_VERSION, "the program was compiled for ")

#define BYTES(function, bytes, length)                                                                     \
    do {                                                                                                   \
        static const char zeros[257];                                                                      \
        REFUSED(function, #length, "257", (a.bytes = input(zeros, 257), a.length = 257), INVALID_ARGUMENT, \
                "`" #bytes "`: has length 257, at most 256");                                              \
        ACCEPTED(function, #length, "256", (a.bytes = input(zeros, 256), a.length = 256));                 \
    } while (0)

/* How many handles fit. The core is not to believe more than there are responses. */
#define CAPACITY(function, capacity)                                                                               \
    do {                                                                                                           \
        REFUSED(function, #capacity, "0", a.capacity = 0, INVALID_ARGUMENT, "`" #capacity "`: is 0");              \
        for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++)                                                     \
            ACCEPTED(                                                                                              \
                function, #capacity, "absurd",                                                                     \
                (a.capacity = absurd_lengths[i], a.request_id = submitted(), a.timeout_ms = TRTLLM_WAIT_FOREVER)); \
    } while (0)

/* Also where nothing would be written. */
#define MISALIGNED_RESULT(function, buffer, capacity)                                                        \
    MISALIGNED(function, buffer);                                                                            \
    REFUSED(function, #buffer, "misaligned, no capacity", (a.buffer = misaligned(a.buffer), a.capacity = 0), \
            INVALID_ARGUMENT, "`" #buffer "`: is not aligned")

/* Results of unknown size: a buffer, its capacity and a length. `extra` elements follow those that the length counts.
 */
#define RESULT(function, buffer, capacity, length, extra)                                                         \
    do {                                                                                                          \
        size_t needed, element;                                                                                   \
        reset();                                                                                                  \
        begin(#function, #buffer, "size query");                                                                  \
        function##_arguments a = function##_valid();                                                              \
        element = sizeof *a.buffer;                                                                               \
        a.buffer = NULL;                                                                                          \
        a.capacity = 0;                                                                                           \
        accepted(function##_call(&a));                                                                            \
        needed = *a.length + (extra);                                                                             \
        memset(a.length, PATTERN, sizeof *a.length);                                                              \
        untouched();                                                                                              \
        const size_t small[] = {0, 1, needed - 1};                                                                \
        for (size_t i = 0; i < LENGTH_OF(small); i++) {                                                           \
            reset();                                                                                              \
            begin(#function, #capacity, "too small");                                                             \
            a = function##_valid();                                                                               \
            a.buffer = output(small[i] * element);                                                                \
            a.capacity = small[i];                                                                                \
            trtllm_status got = function##_call(&a);                                                              \
            if (*a.length != needed - (extra)) wrong("another length");                                           \
            memset(a.length, PATTERN, sizeof *a.length);                                                          \
            refused(got, TRTLLM_STATUS_BUFFER_TOO_SMALL, "`" #buffer "`");                                        \
        }                                                                                                         \
        ACCEPTED(function, #capacity, "just enough", (a.buffer = output(needed * element), a.capacity = needed)); \
        for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++)                                                    \
            ACCEPTED(function, #capacity, "absurd",                                                               \
                     (a.buffer = output(needed * element), a.capacity = absurd_lengths[i]));                      \
        REFUSED(function, #buffer, "NULL with a capacity", (a.buffer = NULL, a.capacity = 1), INVALID_ARGUMENT,   \
                "`" #buffer "`: is NULL");                                                                        \
    } while (0)

/* Structs that the library fills, and their sizes; sizes between two multiples of the alignment are of no version. */
#define EACH_WRONG_SIZE(type)                                       \
    const size_t wrong_sizes[] = {0,                                \
                                  1,                                \
                                  7,                                \
                                  8,                                \
                                  sizeof(type) - 1,                 \
                                  sizeof(type) + 1,                 \
                                  (64 << 10) + 1,                   \
                                  (64 << 10) + 8,                   \
                                  (size_t)1 << 32,                  \
                                  ((size_t)1 << 32) + sizeof(type), \
                                  (size_t)1 << 40,                  \
                                  SIZE_MAX / 2,                     \
                                  SIZE_MAX - 7,                     \
                                  SIZE_MAX};                        \
    for (size_t i = 0; i < LENGTH_OF(wrong_sizes); i++)

#define SIZE_OF_RESULT(function, parameter, size, type)                                                         \
    do {                                                                                                        \
        EACH_WRONG_SIZE(type)                                                                                   \
        REFUSED(function, #size, "wrong size", a.size = wrong_sizes[i], INVALID_ARGUMENT, "`" #size "`: is ");  \
        begin(#function, #size, "a newer caller's");                                                            \
        reset();                                                                                                \
        function##_arguments a = function##_valid();                                                            \
        a.size = sizeof(type) + 16;                                                                             \
        a.parameter = output(a.size);                                                                           \
        accepted(function##_call(&a));                                                                          \
        for (size_t i = sizeof(type); i < a.size; i++)                                                          \
            if (((const unsigned char *)a.parameter)[i] != 0) wrong("what the library does not know is not 0"); \
        renew();                                                                                                \
    } while (0)

/* Structs that the caller fills: `_init` and `_INIT` agree, the size is read before the rest. */
static inline void *config_of(const void *bytes, size_t size, size_t said) {
    unsigned char *start = input(bytes, size);
    memcpy(start, &said, sizeof said);
    return start;
}

#define CONFIG_SIZE(function, parameter, type)                                                               \
    do {                                                                                                     \
        struct {                                                                                             \
            type known;                                                                                      \
            uint64_t tail[2];                                                                                \
        } newer = {type##_default(), {0, 0}};                                                                \
        EACH_WRONG_SIZE(type)                                                                                \
        REFUSED(function, #parameter ".struct_size", "wrong size",                                           \
                a.parameter = config_of(&newer, sizeof(size_t), wrong_sizes[i]), INVALID_ARGUMENT,           \
                "`" #parameter ".struct_size`: is ");                                                        \
        newer.known.struct_size = sizeof newer;                                                              \
        ACCEPTED(function, #parameter, "a newer caller's", a.parameter = input(&newer, sizeof newer));       \
        newer.tail[1] = (uint64_t)1 << 63;                                                                   \
        REFUSED(function, #parameter, "set beyond what is known", a.parameter = input(&newer, sizeof newer), \
                INVALID_ARGUMENT, "`" #parameter "`: byte ");                                                \
        MISALIGNED(function, parameter);                                                                     \
    } while (0)

#define SAME_DEFAULTS(type)                                                 \
    do {                                                                    \
        type macro = type##_default(), function;                            \
        begin(#type, "_INIT", "the same as by _init");                      \
        memset(&function, PATTERN, sizeof function);                        \
        accepted(type##_init(sizeof function, &function));                  \
        if (memcmp(&macro, &function, sizeof macro) != 0) wrong("differs"); \
    } while (0)

/* One field of a config is wrong. */
#define WITH_FIELD(parameter, field, type, value) \
    type config = type##_default();               \
    config.field = value;                         \
    a.parameter = input(&config, sizeof config)
#define FIELD(function, parameter, field, type, value, status, culprit) \
    REFUSED(function, #parameter "." #field, #value, WITH_FIELD(parameter, field, type, value), status, culprit)
#define FIELD_LATER(function, parameter, field, type, value, status, culprit) \
    REFUSED_LATER(function, #parameter "." #field, #value, WITH_FIELD(parameter, field, type, value), status, culprit)
#define FIELD_TAKEN(function, parameter, field, type, value) \
    ACCEPTED(function, #parameter "." #field, #value, WITH_FIELD(parameter, field, type, value))

/* Callbacks. */
static int frees;

static inline void heard(void *user_data, const trtllm_response *response) {
    (void)user_data;
    (void)response;
}

static inline void freed(void *user_data) {
    ++*(int *)user_data;
}

/* User data is freed once when the call took it, and never when it did not. */
#define CALLBACK(function, callback, user_data, free)                                                       \
    do {                                                                                                    \
        int before = frees;                                                                                 \
        REFUSED(function, #free, "without a callback", a.callback = NULL, INVALID_ARGUMENT, "`" #free "`"); \
        if (frees != before) wrong("user data of a refused call was freed");                                \
        ACCEPTED(function, #callback, "valid", (void)0);                                                    \
        if (frees != before + 1) wrong("user data was not freed once");                                     \
        ACCEPTED(function, #callback, "NULL", (a.callback = NULL, a.free = NULL));                          \
        ACCEPTED(function, #user_data, "NULL", (a.user_data = NULL, a.free = NULL));                        \
        if (frees != before + 1) wrong("user data was freed again");                                        \
    } while (0)

#define FIELD_NAMES(function, parameter, field, type)                                                                 \
    do {                                                                                                              \
        const char *const *const wrong_names[] = {NULL, (const char *const *)(uintptr_t)7};                           \
        for (size_t i = 0; i < LENGTH_OF(wrong_names); i++)                                                           \
            REFUSED(function, #parameter "." #field, "wrong array", WITH_NAMES(parameter, type, wrong_names[i], 1),   \
                    INVALID_ARGUMENT, "`" #parameter "." #field "`: is ");                                            \
        for (size_t i = 0; i < LENGTH_OF(absurd_lengths); i++)                                                        \
            REFUSED(function, #parameter "." #field, "absurd length",                                                 \
                    WITH_NAMES(parameter, type, names(string("qkv")), absurd_lengths[i]), INVALID_ARGUMENT,           \
                    "`" #parameter "." #field "`: has length");                                                       \
        REFUSED(function, #parameter "." #field, "NULL in it", WITH_NAMES(parameter, type, names(NULL), 1),           \
                INVALID_ARGUMENT, "`" #parameter "." #field "[0]`: is NULL");                                         \
        REFUSED(function, #parameter "." #field, "endless name",                                                      \
                WITH_NAMES(parameter, type, names(endless_name()), 1), INVALID_ARGUMENT,                              \
                "`" #parameter "." #field "[0]`");                                                                    \
        REFUSED(function, #parameter "." #field, "not UTF-8", WITH_NAMES(parameter, type, names(string("\xff")), 1),  \
                INVALID_ARGUMENT, "`" #parameter "." #field "[0]`");                                                  \
        REFUSED(function, #parameter "." #field, "unknown", WITH_NAMES(parameter, type, names(string("no_such")), 1), \
                INVALID_ARGUMENT, "no_such");                                                                         \
    } while (0)
#define WITH_NAMES(parameter, type, array, count) \
    type config = type##_default();               \
    config.disabled_passes = array;               \
    config.disabled_pass_count = count;           \
    a.parameter = input(&config, sizeof config)

/* Names of values: every number has one. */
#define NAMED(function, value, name)                                   \
    do {                                                               \
        begin(#function, #value, "name");                              \
        if (strcmp(function(value), name) != 0) wrong("another name"); \
    } while (0)

#endif
