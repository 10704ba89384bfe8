/* A null server: speaks just enough of OpenAI's streaming protocol to measure a client, and logs the truth.
 *
 * usage: null_server [--port P] [--ttft-us N] [--gap-us N] [--grid-us N] [--per-write N] [--spread] [--role-early]
 *                    [--share] [--slower PERCENT] [--with-parent] [--truth FILE]
 *
 * One thread, one epoll. A request asks for its number of tokens with "max_tokens"; its x-request-id goes into the log.
 * gap-us 0 floods: tokens leave as fast as the socket takes them, --per-write of them in one write (and one HTTP chunk).
 * gap-us above 0 paces: token i of a stream leaves at (arrival of the request) + ttft + i * gap, an absolute schedule.
 * --spread starts every stream up to one gap later, by its connection, so that streams that were asked for at once do
 * not stay in step for ever; without it they do.
 * --grid-us rounds the start of every stream up to a common grid, so that all streams get their tokens at one moment.
 * --share lets several of these servers listen on one port, on every address: the kernel deals connections out.
 * --slower N makes times N percent longer an hour, evenly from the start: a drift that is to be found.
 * --with-parent ends it with the process that started it, however that one ends.
 * --role-early sends a chunk with a role and no content at once. A request without "stream":true gets one token at once.
 *
 * Truth, one line a request, all times CLOCK_MONOTONIC in ns, taken right before the write:
 *   id  request_read  first_token_write  last_token_write  tokens  late_max_ns
 * late_max_ns is how far the server itself was behind its schedule, at worst, in that stream.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { IN_MAX = 1 << 20, OUT_MAX = 1 << 16, CONNS = 1 << 16 };

typedef struct {
    int fd, heap_at;
    char *in;
    size_t in_len;
    char *out;
    size_t out_len, out_sent;
    char id[160];
    int64_t asked, start, due, gap, first, last, late;
    int tokens, sent, usage, waiting_out, active;
} Conn;

static Conn *conns[CONNS];
static Conn *heap[CONNS];
static int heap_len, ep;
static int64_t ttft_ns, gap_ns, grid_ns;
static int per_write = 1, role_early, spread, share;
static double slower;
static int64_t began;
static FILE *truth;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void heap_set(int i, Conn *c) { heap[i] = c; c->heap_at = i; }

static void heap_up(int i) {
    Conn *c = heap[i];
    for (; i > 0 && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) heap_set(i, heap[(i - 1) / 2]);
    heap_set(i, c);
}

static void heap_down(int i) {
    Conn *c = heap[i];
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        heap_set(i, heap[child]);
        i = child;
    }
    heap_set(i, c);
}

static void heap_push(Conn *c) { heap_set(heap_len++, c); heap_up(c->heap_at); }

static void heap_remove(Conn *c) {
    int i = c->heap_at;
    if (i < 0) return;
    c->heap_at = -1;
    Conn *last = heap[--heap_len];
    if (last == c) return;
    heap_set(i, last);
    heap_up(i);
    heap_down(last->heap_at);
}

static void drop(Conn *c) {
    heap_remove(c);
    conns[c->fd] = NULL;
    close(c->fd);
    free(c->in); free(c->out); free(c);
}

static void want_out(Conn *c, int on) {
    if (c->waiting_out == on) return;
    c->waiting_out = on;
    struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}

/* Writes what is buffered; 1 if all of it went, 0 if the socket is full, -1 if it is gone. */
static int flush_out(Conn *c) {
    while (c->out_sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) { want_out(c, 1); return 0; }
            return -1;
        }
        c->out_sent += n;
    }
    c->out_len = c->out_sent = 0;
    want_out(c, 0);
    return 1;
}

static void add_chunk(Conn *c, const char *data, size_t len) {
    c->out_len += sprintf(c->out + c->out_len, "%zx\r\n", len);
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
    memcpy(c->out + c->out_len, "\r\n", 2);
    c->out_len += 2;
}

static size_t event(Conn *c, char *to, const char *delta, const char *finish) {
    return sprintf(to,
        "data: {\"id\":\"chatcmpl-%.40s\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"null\","
        "\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s}]}\n\n", c->id, delta, finish);
}

static void add_tokens(Conn *c, int n) {
    char payload[OUT_MAX / 2];
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        char delta[64];
        sprintf(delta, "\"content\":\" tok%d\"", (c->sent + i) % 1000);
        len += event(c, payload + len, delta, "null");
    }
    add_chunk(c, payload, len);
    c->sent += n;
}

static void add_end(Conn *c) {
    char payload[1024];
    add_chunk(c, payload, event(c, payload, "", "\"length\""));
    if (c->usage) {
        size_t n = sprintf(payload,
            "data: {\"id\":\"chatcmpl-%.40s\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"null\","
            "\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
            c->id, 10 + c->tokens, c->tokens);
        add_chunk(c, payload, n);
    }
    add_chunk(c, "data: [DONE]\n\n", 14);
    memcpy(c->out + c->out_len, "0\r\n\r\n", 5);
    c->out_len += 5;
}

static void finish(Conn *c) {
    if (truth)
        fprintf(truth, "%s %lld %lld %lld %d %lld\n", c->id, (long long)c->asked, (long long)c->first,
                (long long)c->last, c->tokens, (long long)c->late);
    c->active = 0;
}

/* Sends the next tokens of a stream; -1 if the connection is gone. */
static int advance(Conn *c) {
    int flood = gap_ns == 0;
    for (int round = 0; c->sent < c->tokens; round++) {
        if (flood && round == 8) { c->due = 0; heap_push(c); return 0; }   /* give others their turn */
        int n = c->tokens - c->sent < per_write ? c->tokens - c->sent : per_write;
        int64_t now = now_ns();
        if (!flood && now < c->due) { heap_push(c); return 0; }
        if (!flood && now - c->due > c->late) c->late = now - c->due;
        if (!c->first) c->first = now;
        c->last = now;
        add_tokens(c, n);
        c->due += c->gap * n;
        if (c->sent == c->tokens && flood) break;
        int r = flush_out(c);
        if (r <= 0) return r;
    }
    add_end(c);
    int r = flush_out(c);
    finish(c);
    return r < 0 ? -1 : 0;
}

static void begin(Conn *c, const char *body) {
    const char *m = strstr(body, "\"max_tokens\":"), *newer = strstr(body, "\"max_completion_tokens\":");
    c->asked = now_ns();
    c->tokens = m ? atoi(m + 13) : newer ? atoi(newer + 24) : 16;
    c->usage = strstr(body, "\"include_usage\":true") || strstr(body, "\"include_usage\": true");
    c->sent = 0; c->first = c->last = c->late = 0; c->active = 1;
    double pace = 1 + slower * (c->asked - began) / 3600e9;
    c->gap = gap_ns * pace;
    c->start = c->asked + (int64_t)(ttft_ns * pace);
    if (grid_ns) c->start += grid_ns - c->start % grid_ns;
    if (spread && gap_ns) c->start += (c->fd * 2654435761ULL) % (uint64_t)gap_ns;
    c->due = c->start;
    c->out_len = sprintf(c->out,
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
    if (role_early) {
        char payload[512];
        add_chunk(c, payload, event(c, payload, "\"role\":\"assistant\",\"content\":\"\"", "null"));
        flush_out(c);
    }
    heap_push(c);
}

/* Takes a whole request off the input; -1 if it is no request. */
static int take_request(Conn *c) {
    c->in[c->in_len] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return c->in_len < IN_MAX - 1 ? 0 : -1;
    char *length = strcasestr(c->in, "content-length:");
    size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    size_t total = (end + 4 - c->in) + body;
    if (total >= IN_MAX) return -1;
    if (c->in_len < total) return 0;
    char *id = strcasestr(c->in, "x-request-id:");
    strcpy(c->id, "-");
    if (id && id < end) sscanf(id + 13, " %159[^\r\n]", c->id);
    if (!strncmp(c->in, "GET ", 4)) {
        const char *list = "{\"object\":\"list\",\"data\":[{\"id\":\"null\",\"object\":\"model\",\"owned_by\":\"loadgen\"}]}";
        c->out_len += sprintf(c->out + c->out_len,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(list), list);
        if (flush_out(c) < 0) return -1;
    } else if (!strstr(end + 4, "\"stream\":true") && !strstr(end + 4, "\"stream\": true")) {
        char reply[512];
        int n = sprintf(reply, "{\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
            "\"content\":\"tok\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":1}}");
        c->out_len += sprintf(c->out + c->out_len,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", n, reply);
        if (flush_out(c) < 0) return -1;
    } else {
        begin(c, end + 4);
    }
    memmove(c->in, c->in + total, c->in_len - total);
    c->in_len -= total;
    return 0;
}

static void readable(Conn *c) {
    ssize_t n = recv(c->fd, c->in + c->in_len, IN_MAX - 1 - c->in_len, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) { drop(c); return; }
    if (n > 0) c->in_len += n;
    if (!c->active && c->in_len && take_request(c) < 0) drop(c);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (fd >= CONNS) { close(fd); continue; }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Conn *c = calloc(1, sizeof *c);
        c->fd = fd; c->heap_at = -1;
        c->in = malloc(IN_MAX); c->out = malloc(OUT_MAX);
        conns[fd] = c;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
}

static void stop(int sig) {
    (void)sig;
    if (truth) fclose(truth);
    _exit(0);
}

int main(int argc, char **argv) {
    int port = 0;
    began = now_ns();
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "0";
        if (!strcmp(argv[i], "--role-early")) { role_early = 1; continue; }
        if (!strcmp(argv[i], "--spread")) { spread = 1; continue; }
        if (!strcmp(argv[i], "--share")) { share = 1; continue; }
        if (!strcmp(argv[i], "--with-parent")) { prctl(PR_SET_PDEATHSIG, SIGTERM); continue; }
        if (!strcmp(argv[i], "--port")) port = atoi(v);
        else if (!strcmp(argv[i], "--ttft-us")) ttft_ns = atoll(v) * 1000;
        else if (!strcmp(argv[i], "--gap-us")) gap_ns = atoll(v) * 1000;
        else if (!strcmp(argv[i], "--grid-us")) grid_ns = atoll(v) * 1000;
        else if (!strcmp(argv[i], "--slower")) slower = atof(v) / 100;
        else if (!strcmp(argv[i], "--per-write")) per_write = atoi(v);
        else if (!strcmp(argv[i], "--truth")) { truth = fopen(v, "w"); if (!truth) { perror(v); return 1; } setvbuf(truth, NULL, _IOFBF, 1 << 20); }
        else { fprintf(stderr, "null_server: unknown flag %s\n", argv[i]); return 2; }
        i++;
    }
    if (per_write < 1 || per_write > 64) { fprintf(stderr, "null_server: --per-write is 1 to 64\n"); return 2; }
    struct rlimit files = {CONNS, CONNS};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGTERM, stop); signal(SIGINT, stop); signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (share) setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port),
                            .sin_addr.s_addr = htonl(share ? INADDR_ANY : INADDR_LOOPBACK)};
    socklen_t alen = sizeof a;
    if (bind(listener, (struct sockaddr *)&a, alen) || listen(listener, 65535)) { perror("null_server"); return 1; }
    getsockname(listener, (struct sockaddr *)&a, &alen);
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    ep = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = timer;
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &e);
    for (;;) {
        int64_t now = now_ns(), due = 0;
        for (int budget = heap_len; budget > 0 && heap_len && heap[0]->due <= now; budget--) {
            Conn *c = heap[0];
            heap_remove(c);
            if (advance(c) < 0) drop(c);
            else if (!c->active && c->in_len && take_request(c) < 0) drop(c);
        }
        if (heap_len) due = heap[0]->due;
        if (heap_len && due > now) {
            struct itimerspec t = {.it_value = {due / 1000000000LL, due % 1000000000LL}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
        }
        struct epoll_event ev[256];
        int n = epoll_wait(ep, ev, 256, heap_len && due <= now_ns() ? 0 : -1);
        for (int i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            if (fd == listener) { accept_all(fd); continue; }
            if (fd == timer) { uint64_t x; if (read(timer, &x, 8) < 0) continue; continue; }
            Conn *c = conns[fd];
            if (!c) continue;
            if (ev[i].events & EPOLLOUT) {
                int r = flush_out(c);
                if (r < 0) { drop(c); continue; }
                /* with its last token, too: the end of the stream is still to be sent */
                if (r > 0 && c->active && c->heap_at < 0 && advance(c) < 0) { drop(c); continue; }
            }
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
        }
    }
}
