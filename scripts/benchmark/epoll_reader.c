/* The least that a client can do: a C epoll loop that sends requests, reads the replies, stamps each read in user space.
 *
 * usage: epoll_reader PORT STREAMS REQUESTS TOKENS [STAMPS]
 *
 * It keeps STREAMS requests in flight until REQUESTS are done, and looks only for the end of each reply. STAMPS gets
 * one line a request: id, time of the send (twice), time of the first read with a token (CLOCK_MONOTONIC, ns).
 * Prints {"cpu_s", "wall_s", "reads"}; CPU is user and system of the loop alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef struct { int id; int64_t sent, first; char tail[8]; } Stream;

static int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void ask(int fd, Stream *s, int id, int tokens) {
    char body[256], request[512];
    int n = sprintf(body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hello %d\"}],\"max_tokens\":%d,"
                          "\"stream\":true,\"stream_options\":{\"include_usage\":true}}", id, tokens);
    int m = sprintf(request, "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r-%d\r\n"
                             "content-length: %d\r\n\r\n%s", id, n, body);
    s->id = id; s->first = 0;
    memset(s->tail, 0, sizeof s->tail);
    s->sent = now_ns(CLOCK_MONOTONIC);
    if (send(fd, request, m, MSG_NOSIGNAL) != m) { perror("send"); exit(1); }
}

int main(int argc, char **argv) {
    if (argc < 5) { fprintf(stderr, "usage: epoll_reader PORT STREAMS REQUESTS TOKENS [STAMPS]\n"); return 2; }
    int port = atoi(argv[1]), streams = atoi(argv[2]), requests = atoi(argv[3]), tokens = atoi(argv[4]);
    FILE *stamps = argc > 5 ? fopen(argv[5], "w") : NULL;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int ep = epoll_create1(0), *fds = calloc(streams, sizeof *fds), asked = 0, done = 0;
    Stream *all = calloc(65536, sizeof *all);
    static char buffer[65536];
    for (int i = 0; i < streams; i++) {
        int fd = fds[i] = socket(AF_INET, SOCK_STREAM, 0), one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    }
    int64_t wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    long reads = 0;
    for (int i = 0; i < streams && asked < requests; i++) ask(fds[i], &all[fds[i]], asked++, tokens);
    while (done < requests) {
        struct epoll_event ev[256];
        int n = epoll_wait(ep, ev, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ev[i].data.fd;
            Stream *s = &all[fd];
            ssize_t got = recv(fd, buffer, sizeof buffer, 0);
            int64_t at = now_ns(CLOCK_MONOTONIC);
            if (got <= 0) { fprintf(stderr, "epoll_reader: a connection was closed\n"); return 1; }
            reads++;
            if (!s->first && memmem(buffer, got, "\"content\":\" ", 12)) s->first = at;
            if (got >= 5 && !memcmp(buffer + got - 5, "0\r\n\r\n", 5)) {
                if (stamps) fprintf(stamps, "r-%d %lld %lld %lld\n", s->id, (long long)s->sent, (long long)s->sent, (long long)s->first);
                done++;
                if (asked < requests) ask(fd, s, asked++, tokens);
            }
        }
    }
    cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = now_ns(CLOCK_MONOTONIC) - wall;
    printf("{\"cpu_s\": %.6f, \"wall_s\": %.6f, \"reads\": %ld}\n", cpu / 1e9, wall / 1e9, reads);
    if (stamps) fclose(stamps);
    return 0;
}
