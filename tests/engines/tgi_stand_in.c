/* A stand-in for text-generation-launcher: TGI's routes, flags and exit habits, without a model.
 *
 * It is one static binary, so that an image can be made of it from scratch, without any registry. It answers
 * GET /health /info /metrics and POST / /generate /generate_stream /v1/chat/completions with as many tokens as are
 * asked for, one every GAP_MS (2 by default), a thread a connection. Like the real one it listens on port 80, prints
 * what it does, and ends on SIGTERM with exit code 0. --deaf makes it ignore SIGTERM; --dies makes it fail at its start.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const char *model = "none";
static int gap_us = 2000;
static atomic_long requests, generated;

static void ended(int number) {
    (void)number;
    _exit(0);
}

/* One piece of a chunked reply; 0 if the client has gone. */
static int piece(int fd, const char *format, ...) {
    char text[4096], frame[4200];
    va_list words;
    va_start(words, format);
    int length = vsnprintf(text, sizeof text, format, words);
    va_end(words);
    int whole = snprintf(frame, sizeof frame, "%x\r\n%s\r\n", length, text);
    return send(fd, frame, whole, MSG_NOSIGNAL) == whole;
}

static void answer(int fd, int status, const char *type, const char *body) {
    char head[256];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", status,
                          type, strlen(body));
    send(fd, head, length, MSG_NOSIGNAL | MSG_MORE);
    send(fd, body, strlen(body), MSG_NOSIGNAL);
}

/* The number after "name": in a JSON text, or `otherwise`. */
static int number_of(const char *body, const char *name, int otherwise) {
    const char *found = strstr(body, name);
    return found ? atoi(found + strlen(name) + strspn(found + strlen(name), "\": ")) : otherwise;
}

static int is_true(const char *body, const char *name) {
    const char *found = strstr(body, name);
    return found && !strncmp(found + strlen(name) + strspn(found + strlen(name), "\": "), "true", 4);
}

static void stream(int fd, int chat, int tokens, int usage) {
    const char *head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    send(fd, head, strlen(head), MSG_NOSIGNAL);
    for (int i = 1; i <= tokens; i++) {
        usleep(gap_us);
        int last = i == tokens;
        char details[160] = "null";
        if (last)
            snprintf(details, sizeof details,
                     "{\"finish_reason\":\"length\",\"generated_tokens\":%d,\"seed\":null,\"input_length\":7}", tokens);
        int sent = chat ? piece(fd,
                                "data: {\"object\":\"chat.completion.chunk\",\"id\":\"\",\"model\":\"%s\",\"choices\":[{"
                                "\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\" a\"},\"finish_reason\":%s}]}\n\n",
                                model, last ? "\"length\"" : "null")
                        : piece(fd,
                                "data:{\"index\":%d,\"token\":{\"id\":%d,\"text\":\" a\",\"logprob\":-1.0,\"special\":false},"
                                "\"generated_text\":%s,\"details\":%s}\n\n",
                                i, i, last ? "\" a\"" : "null", details);
        if (!sent) return;
        generated++;
    }
    if (chat && usage)
        piece(fd,
              "data: {\"object\":\"chat.completion.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,"
              "\"completion_tokens\":%d,\"total_tokens\":%d}}\n\n",
              tokens, tokens + 7);
    if (chat) piece(fd, "data: [DONE]\n\n");
    send(fd, "0\r\n\r\n", 5, MSG_NOSIGNAL);
}

static void whole(int fd, int chat, int listed, int tokens) {
    char body[1024];
    usleep(gap_us * tokens);
    generated += tokens;
    if (chat)
        snprintf(body, sizeof body,
                 "{\"object\":\"chat.completion\",\"id\":\"\",\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{"
                 "\"role\":\"assistant\",\"content\":\" a\"},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":7,"
                 "\"completion_tokens\":%d,\"total_tokens\":%d}}",
                 model, tokens, tokens + 7);
    else
        snprintf(body, sizeof body,
                 "%s{\"generated_text\":\" a\",\"details\":{\"finish_reason\":\"length\",\"generated_tokens\":%d,"
                 "\"seed\":null,\"prefill\":[],\"tokens\":[]}}%s",
                 listed ? "[" : "", tokens, listed ? "]" : "");
    answer(fd, 200, "application/json", body);
}

static void get(int fd, const char *path) {
    char body[512];
    if (!strcmp(path, "/health")) {
        answer(fd, 200, "text/plain", "");
    } else if (!strcmp(path, "/info")) {
        snprintf(body, sizeof body,
                 "{\"model_id\":\"%s\",\"model_sha\":\"0123abcd\",\"version\":\"3.3.7\",\"max_total_tokens\":4096}", model);
        answer(fd, 200, "application/json", body);
    } else if (!strcmp(path, "/metrics")) {
        snprintf(body, sizeof body,
                 "# TYPE tgi_request_count counter\ntgi_request_count %ld\n"
                 "# TYPE tgi_request_generated_tokens summary\ntgi_request_generated_tokens_sum %ld\n",
                 (long)requests, (long)generated);
        answer(fd, 200, "text/plain", body);
    } else {
        answer(fd, 404, "text/plain", "not found");
    }
}

static void post(int fd, const char *path, const char *body) {
    int chat = !strcmp(path, "/v1/chat/completions");
    int native = !strcmp(path, "/") || !strcmp(path, "/generate") || !strcmp(path, "/generate_stream");
    requests++;
    if (!chat && !native) {
        answer(fd, 404, "text/plain", "not found");
        return;
    }
    int tokens = number_of(body, chat ? "\"max_tokens\"" : "\"max_new_tokens\"", 20);
    int streamed = !strcmp(path, "/generate_stream") || (strcmp(path, "/generate") && is_true(body, "\"stream\""));
    if (streamed)
        stream(fd, chat, tokens, is_true(body, "\"include_usage\""));
    else
        whole(fd, chat, !strcmp(path, "/"), tokens);
}

/* Reads one request into `held`; 0 when the connection is over. */
static int request(int fd, char *held, size_t room, char **body) {
    size_t have = 0;
    for (;;) {
        ssize_t came = recv(fd, held + have, room - 1 - have, 0);
        if (came <= 0) return 0;
        held[have += came] = 0;
        char *end = strstr(held, "\r\n\r\n");
        if (!end) continue;
        char *length = strcasestr(held, "\r\ncontent-length:");
        size_t wanted = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
        *body = end + 4;
        if (have >= (size_t)(end + 4 - held) + wanted) return 1;
        if (have >= room - 1) return 0;
    }
}

static void *serve(void *handed) {
    int fd = (int)(long)handed, on = 1;
    size_t room = 1 << 20;
    char *held = malloc(room), *body, verb[8], path[256];
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (held && request(fd, held, room, &body)) {
        if (sscanf(held, "%7s %255s", verb, path) != 2) break;
        if (!strcmp(verb, "GET"))
            get(fd, path);
        else
            post(fd, path, body);
    }
    free(held);
    close(fd);
    return NULL;
}

int main(int count, char **words) {
    int deaf = 0, port = getenv("PORT") ? atoi(getenv("PORT")) : 80, on = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < count; i++) {
        if (!strcmp(words[i], "--model-id") && i + 1 < count) model = words[i + 1];
        if (!strcmp(words[i], "--deaf")) deaf = 1;
        if (!strcmp(words[i], "--dies")) {
            printf("ERROR text_generation_launcher: Shard 0 failed to start\n");
            return 1;
        }
    }
    if (getenv("GAP_MS")) gap_us = (int)(atof(getenv("GAP_MS")) * 1000);
    printf("Args { model_id: \"%s\", token: %s }\n", model, getenv("HF_TOKEN") ? getenv("HF_TOKEN") : "none");
    signal(SIGTERM, deaf ? SIG_IGN : ended);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 256)) {
        perror("cannot listen");
        return 1;
    }
    printf("Setting max batch total tokens to 65536\nConnected\n");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd >= 0 && !pthread_create(&thread, NULL, serve, (void *)(long)fd)) pthread_detach(thread);
    }
}
