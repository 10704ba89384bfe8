/* The steps that a client does for every token, in C: sockets are read with their stamps, and the whole HTTP chunks of
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

typedef struct { /* what a read of a socket gives; see receive */
    PyObject *data;
    struct timespec stamp;
    int stamped;
    long long now;
} Read;

static long long ns_of(const struct timespec *moment) { return moment->tv_sec * 1000000000LL + moment->tv_nsec; }

/* 1: read; 0: nothing was, see errno; -1: an exception is set. */
static int read_socket(int fd, long size, Read *one) {
    _Alignas(struct cmsghdr) char control[64];
    struct iovec into = {room, size};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct timespec now;
    ssize_t length;
    do length = recvmsg(fd, &message, MSG_DONTWAIT);
    while (length < 0 && errno == EINTR);
    if (length < 0) return 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct cmsghdr *stamp = CMSG_FIRSTHDR(&message); /* the socket was asked for nothing else */
    one->now = ns_of(&now);
    one->stamped = stamp && stamp->cmsg_len == CMSG_LEN(sizeof one->stamp);
    if (one->stamped) memcpy(&one->stamp, CMSG_DATA(stamp), sizeof one->stamp);
    one->data = PyBytes_FromStringAndSize(room, length);
    return one->data ? 1 : -1;
}

static PyObject *stamp_of(const Read *one) {
    return PyBytes_FromStringAndSize((const char *)&one->stamp, one->stamped ? sizeof one->stamp : 0);
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
    Read one;
    int found = read_socket((int)fd, size, &one);
    if (found < 0) return NULL;
    if (!found) return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("NNL", one.data, stamp_of(&one), one.now);
}

/* -- reading many ------------------------------------------------------------------------------------------------- */

enum { EXCHANGE, HOT, ROOM, PIECES, MARKS, NAMES };
static const char *const spelled[NAMES] = {"exchange", "hot", "room", "pieces", "marks"};

static PyObject *names[NAMES]; /* the same, interned, once for all calls */

typedef struct {
    PyObject *large;        /* the room of a stream that fills what it has */
    long event;             /* what a socket has to be ready for */
    Py_ssize_t many, much, bytes;
    PyObject *rest, *odd, *full; /* see read_on */
} Reading;

/* One piece more waits in the exchange: how many do now, or -1. */
static Py_ssize_t add_piece(PyObject *exchange, PyObject *data) {
    PyObject *list = PyObject_GetAttr(exchange, names[PIECES]);
    Py_ssize_t length = -1;
    if (list && !PyList_Append(list, data)) length = PyList_Size(list);
    Py_XDECREF(list);
    return length;
}

/* Its mark: see stamps.py. 0, or -1. */
static int add_mark(PyObject *exchange, const Read *one) {
    long long mark[2] = {one->stamped ? ns_of(&one->stamp) : 0, one->now};
    PyObject *marks = PyObject_GetAttr(exchange, names[MARKS]);
    int failed = !marks;
    if (marks && !PyByteArray_Check(marks)) {
        PyErr_SetString(PyExc_TypeError, "marks are a bytearray");
        failed = 1;
    }
    Py_ssize_t length = failed ? 0 : PyByteArray_Size(marks);
    failed = failed || PyByteArray_Resize(marks, length + (Py_ssize_t)sizeof mark);
    if (!failed) memcpy(PyByteArray_AsString(marks) + length, mark, sizeof mark);
    Py_XDECREF(marks);
    return failed ? -1 : 0;
}

static int may_be_the_end(const char *data, Py_ssize_t len) {
    return len < 7 || (!memcmp(data + len - 4, "\r\n\r\n", 4) && memcmp(data + len - 6, "\r\n", 2));
}

static int keep(Reading *r, PyObject *connection, PyObject *exchange, Read *one, long size) {
    char *data;
    Py_ssize_t len, waiting;
    if (PyBytes_AsStringAndSize(one->data, &data, &len)) return -1;
    if (may_be_the_end(data, len)) {
        PyObject *found = Py_BuildValue("OOONL", connection, exchange, one->data, stamp_of(one), one->now);
        int failed = !found || PyList_Append(r->odd, found);
        Py_XDECREF(found);
        return failed ? -1 : 0;
    }
    r->bytes += len;
    waiting = add_piece(exchange, one->data);
    if (waiting < 0 || add_mark(exchange, one)) return -1;
    if (len >= size
        && (PyObject_SetAttr(exchange, names[HOT], r->large) || PyObject_SetAttr(exchange, names[ROOM], r->large)))
        return -1;
    return waiting >= r->many || len >= r->much ? PyList_Append(r->full, exchange) : 0;
}

/* 1: the socket was read; 0: it is for others to read; -1: an exception is set. */
static int read_one(Reading *r, int fd, PyObject *connection) {
    PyObject *exchange = PyObject_GetAttr(connection, names[EXCHANGE]), *hot = NULL;
    Read one;
    int done = exchange ? 0 : -1;
    if (exchange && exchange != Py_None) {
        hot = PyObject_GetAttr(exchange, names[HOT]);
        long size = hot ? PyLong_AsLong(hot) : -1; /* 0: it is not familiar */
        if (size < 0 || size > (long)sizeof room) done = -1;
        else if (size > 0 && (done = read_socket(fd, size, &one)) > 0) {
            if (keep(r, connection, exchange, &one, size)) done = -1;
            Py_DECREF(one.data);
        }
        if (done < 0 && !PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "an exchange has no such room");
    }
    Py_XDECREF(hot);
    Py_XDECREF(exchange);
    return done;
}

static int read_all(Reading *r, PyObject *ready, PyObject *connections) {
    for (Py_ssize_t i = 0; i < PyList_Size(ready); i++) {
        PyObject *item = PyList_GetItem(ready, i), *fd = PyTuple_GetItem(item, 0), *event = PyTuple_GetItem(item, 1);
        if (!fd || !event) return -1;
        PyObject *connection = PyLong_AsLong(event) == r->event ? PyDict_GetItemWithError(connections, fd) : NULL;
        int done = connection ? read_one(r, (int)PyLong_AsLong(fd), connection) : 0;
        if (PyErr_Occurred() || done < 0 || (!done && PyList_Append(r->rest, item))) return -1;
    }
    return 0;
}

PyDoc_STRVAR(read_on_doc,
"read_on(ready, connections, event, many, much, large, /)\n--\n\n"
"Once each of the ready sockets that carry a familiar stream: see hot.py, which has the same in Python.");

static PyObject *read_on(PyObject *self, PyObject *args) {
    Reading r = {NULL, 0, 0, 0, 0, PyList_New(0), PyList_New(0), PyList_New(0)};
    PyObject *ready, *connections, *found = NULL;
    int failed = !r.rest || !r.odd || !r.full;
    (void)self;
    for (int i = 0; i < NAMES; i++)
        if (!names[i] && !(names[i] = PyUnicode_InternFromString(spelled[i]))) failed = 1;
    if (!failed
        && PyArg_ParseTuple(args, "O!O!lnnO!", &PyList_Type, &ready, &PyDict_Type, &connections, &r.event, &r.many,
                            &r.much, &PyLong_Type, &r.large)
        && !read_all(&r, ready, connections))
        found = Py_BuildValue("OOOn", r.rest, r.odd, r.full, r.bytes);
    Py_XDECREF(r.rest);
    Py_XDECREF(r.odd);
    Py_XDECREF(r.full);
    return found;
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

static int append(PyObject *list, long long value) {
    PyObject *number = PyLong_FromLongLong(value);
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

/* -- stamps ------------------------------------------------------------------------------------------------------ */

#ifdef __linux__
PyDoc_STRVAR(arrivals_doc,
"arrivals(marks, offset_ns, sent_ns, /)\n--\n\n"
"When pieces arrived, and the longest that one waited; None where a stamp cannot be true: see stamps.py.");

static PyObject *arrivals(PyObject *self, PyObject *args) {
    PyObject *marks, *list = PyList_New(0), *found = NULL;
    long long offset, sent, most = 0, mark[2];
    (void)self;
    if (list && PyArg_ParseTuple(args, "O!LL", &PyByteArray_Type, &marks, &offset, &sent)) {
        const char *at = PyByteArray_AsString(marks), *end = at + PyByteArray_Size(marks);
        int good = at != end;
        if ((end - at) % sizeof mark) {
            PyErr_SetString(PyExc_ValueError, "these are no whole marks");
            end = at;
        }
        for (; good && at < end; at += sizeof mark) {
            memcpy(mark, at, sizeof mark);
            long long moment = mark[0] - offset;
            good = mark[0] && moment <= mark[1] && moment >= sent && append(list, moment);
            if (mark[1] - moment > most) most = mark[1] - moment;
        }
        if (!PyErr_Occurred()) found = good ? Py_BuildValue("OL", list, most) : Py_BuildValue("");
    }
    Py_XDECREF(list);
    return found;
}
#endif

static PyMethodDef methods[] = {
#ifdef __linux__
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, receive_doc},
    {"read_on", read_on, METH_VARARGS, read_on_doc},
    {"arrivals", arrivals, METH_VARARGS, arrivals_doc},
#endif
    {"take", take, METH_VARARGS, take_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_fast", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void) { return PyModuleDef_Init(&module); }
