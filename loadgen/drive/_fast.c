/* The two steps that a client does for every token, in C: a socket is read with its stamp, and the whole HTTP chunks of
 * whole, familiar events are taken out of what was read.
 *
 * fast.py has the same in Python and says when that is used; scan.py says what a template is. This file takes what the
 * Python takes, or less (the rest goes the slow way there, too), and the tests run both. It is built where there is a C
 * compiler, for every Python from 3.11 on (the stable ABI).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <string.h>

/* -- reading ----------------------------------------------------------------------------------------------------- */

#ifdef __linux__ /* elsewhere the kernel gives no stamps, and Python's monotonic clock may be another one */
#include <errno.h>
#include <sys/socket.h>
#include <time.h>

static char room[1 << 16]; /* one for all reads, so that it stays in the cache; the interpreter is locked meanwhile */

static PyObject *with_stamp(Py_ssize_t length, struct msghdr *message) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct cmsghdr *stamp = CMSG_FIRSTHDR(message); /* the socket was asked for nothing else */
    PyObject *parts[3] = {
        PyBytes_FromStringAndSize(room, length),
        stamp ? PyBytes_FromStringAndSize((char *)CMSG_DATA(stamp), stamp->cmsg_len - CMSG_LEN(0))
              : PyBytes_FromStringAndSize(NULL, 0),
        PyLong_FromLongLong(now.tv_sec * 1000000000LL + now.tv_nsec),
    };
    PyObject *found = parts[0] && parts[1] && parts[2] ? PyTuple_Pack(3, parts[0], parts[1], parts[2]) : NULL;
    for (int i = 0; i < 3; i++) Py_XDECREF(parts[i]);
    return found;
}

PyDoc_STRVAR(receive_doc,
"receive(fd, size, /)\n--\n\n"
"At most ``size`` bytes of what a socket holds, the kernel's stamp of them (b'' without one), and the time of the read\n"
"(monotonic ns). Never waits. Raises OSError.");

static PyObject *receive(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    long fd = count == 2 ? PyLong_AsLong(args[0]) : -1, size = count == 2 ? PyLong_AsLong(args[1]) : -1;
    if (PyErr_Occurred()) return NULL;
    if (size < 1 || size > (long)sizeof room) {
        PyErr_Format(PyExc_ValueError, "receive takes a descriptor and a size up to %zd", (Py_ssize_t)sizeof room);
        return NULL;
    }
    _Alignas(struct cmsghdr) char control[64];
    struct iovec into = {room, size};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t length;
    do length = recvmsg((int)fd, &message, MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    return length < 0 ? PyErr_SetFromErrno(PyExc_OSError) : with_stamp(length, &message);
}
#endif

/* -- understanding ----------------------------------------------------------------------------------------------- */

typedef struct {
    const char *before, *after;
    Py_ssize_t before_len, after_len;
    PyObject *known, *learn;
} Template;

typedef struct { Py_ssize_t *at, len, room; } Offsets; /* grows */

static int push(Offsets *offsets, Py_ssize_t value) {
    if (offsets->len == offsets->room) {
        Py_ssize_t more = offsets->room ? 2 * offsets->room : 256, *at = PyMem_Realloc(offsets->at, more * sizeof *at);
        if (!at) { PyErr_NoMemory(); return 0; }
        offsets->at = at;
        offsets->room = more;
    }
    offsets->at[offsets->len++] = value;
    return 1;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The size of the HTTP chunk that begins at p, and where its data start; 0 if it is not all there, or not so simple. */
static Py_ssize_t chunk(const char *p, const char *end, const char **start) {
    const char *first = p;
    Py_ssize_t size = 0;
    for (int digit; p < end && (digit = digit_of(*p)) >= 0; p++) {
        if (p - first == 15) return 0;
        size = size * 16 + digit;
    }
    if (p == first || end - p < 4 || memcmp(p, "\r\n", 2)) return 0;
    *start = p + 2;
    return size <= end - *start - 2 && !memcmp(*start + size, "\r\n", 2) ? size : 0;
}

static const char *find(const char *p, const char *end, const char *what, Py_ssize_t length) {
    for (; end - p >= length && (p = memchr(p, what[0], end - p - length + 1)); p++)
        if (!memcmp(p, what, length)) return p;
    return NULL;
}

/* Takes the event that begins at p: its text is appended. Its end; NULL if it does not fit, or with an exception. */
static const char *event(const Template *t, const char *p, const char *end, PyObject *texts) {
    if (end - p < t->before_len + t->after_len || memcmp(p, t->before, t->before_len)) return NULL;
    p += t->before_len;
    const char *stop = find(p, end, t->after, t->after_len);
    PyObject *slot = stop ? PyBytes_FromStringAndSize(p, stop - p) : NULL;
    if (!slot) return NULL;
    PyObject *text = PyDict_GetItemWithError(t->known, slot);
    Py_XINCREF(text);
    if (!text && !PyErr_Occurred()) text = PyObject_CallFunctionObjArgs(t->learn, slot, NULL);
    Py_DECREF(slot);
    int fits = text && text != Py_None && !PyList_Append(texts, text);
    Py_XDECREF(text);
    return fits ? stop + t->after_len : NULL;
}

/* Takes chunks as long as they fit. Where each event ends is pushed, negative for the first of a chunk. The bytes that
 * were taken; -1 with an exception. */
static Py_ssize_t walk(const Template *t, const char *data, Py_ssize_t len, PyObject *texts, Offsets *ends) {
    const char *p = data, *end = data + len, *start;
    for (Py_ssize_t size; (size = chunk(p, end, &start)) > 0; p = start + size + 2) {
        Py_ssize_t first = ends->len;
        const char *at = start;
        while (at && at < start + size) {
            at = event(t, at, start + size, texts);
            if (at && !push(ends, ends->len == first ? data - at : at - data)) return -1;
        }
        if (PyErr_Occurred()) return -1;
        if (!at) { /* the chunk as a whole does not fit */
            ends->len = first;
            if (PyList_SetSlice(texts, first, PyList_Size(texts), NULL)) return -1;
            break;
        }
    }
    return p - data;
}

static int append(PyObject *list, Py_ssize_t value) {
    PyObject *number = PyLong_FromSsize_t(value);
    int bad = !number || PyList_Append(list, number);
    Py_XDECREF(number);
    return !bad;
}

/* Lays events over the pieces that bring their last bytes: the fields of scan.Taken. */
static PyObject *laid(PyObject *pieces, Py_ssize_t taken, PyObject *texts, const Offsets *ends) {
    PyObject *counts = PyList_New(0), *chunks = PyList_New(0), *found = NULL;
    Py_ssize_t whole = 0, edge = 0, before = 0, i = 0;
    int fine = counts && chunks, singly = 1;
    for (Py_ssize_t number = 0; fine && edge < taken; number++) {
        Py_ssize_t first = i, begun = 0;
        PyObject *piece = PyList_GetItem(pieces, number);
        Py_ssize_t length = piece ? PyBytes_Size(piece) : -1;
        if (length < 0) { fine = 0; break; } /* the caller's mistake, and an exception */
        before = edge;
        edge += length;
        for (; i < ends->len && Py_ABS(ends->at[i]) <= edge; i++)
            begun += i == first || ends->at[i] < 0; /* a chunk that goes on from the piece before counts here, too */
        whole += edge <= taken;
        singly = singly && i == first + 1 && edge <= taken;
        fine = append(counts, i - first) && append(chunks, begun);
    }
    if (fine)
        found = Py_BuildValue("nnOOO", whole, edge > taken ? taken - before : (Py_ssize_t)0, texts,
                              singly ? Py_None : counts, singly ? Py_None : chunks);
    Py_XDECREF(counts);
    Py_XDECREF(chunks);
    return found;
}

PyDoc_STRVAR(take_doc,
"take(pieces, joined, before, after, known, learn, /)\n--\n\n"
"The fields of scan.Taken for a list of pieces, the first of which begins with an HTTP chunk, and the same pieces\n"
"joined. ``known`` has texts by their slots; ``learn(slot)`` is the text of a slot that is not there, or None.");

static PyObject *take(PyObject *self, PyObject *args) {
    PyObject *pieces, *joined, *before, *after, *texts = PyList_New(0), *found = NULL;
    Template t;
    Offsets ends = {NULL, 0, 0};
    char *data, *b, *a;
    Py_ssize_t len;
    (void)self;
    if (texts
        && PyArg_ParseTuple(args, "O!SSSO!O", &PyList_Type, &pieces, &joined, &before, &after, &PyDict_Type, &t.known,
                            &t.learn)
        && !PyBytes_AsStringAndSize(joined, &data, &len) && !PyBytes_AsStringAndSize(before, &b, &t.before_len)
        && !PyBytes_AsStringAndSize(after, &a, &t.after_len)) {
        t.before = b;
        t.after = a;
        Py_ssize_t taken = t.after_len ? walk(&t, data, len, texts, &ends) : 0;
        if (taken >= 0) found = laid(pieces, taken, texts, &ends);
    }
    PyMem_Free(ends.at);
    Py_XDECREF(texts);
    return found;
}

static PyMethodDef methods[] = {
#ifdef __linux__
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, receive_doc},
#endif
    {"take", take, METH_VARARGS, take_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void) { return PyModuleDef_Init(&module); }
