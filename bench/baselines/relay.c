/*
 * A TCP relay that does nothing but splice: what any further process on the way of
 * a value costs at least.
 *
 * Each connection gets one to the target, and a pipe for each direction. One thread
 * moves what is there, as much as a pipe holds at once, and then waits (epoll).
 *
 *     relay --port=N --target=N
 *
 * Both ports are of 127.0.0.1. A yardstick and no proxy to use: it waits for
 * connect(2), and has no timeouts.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	PIPE_BYTES = 1024 * 1024,
	EVENTS = 64,
};

struct side {
	struct pair *pair;
	int socket;
	int pipe[2]; /* holds what came from this socket */
	size_t held;
	bool ended;  /* nothing more comes from this socket */
	bool closed; /* and the other one has been told so */
	uint32_t watched;
};

struct pair {
	struct side sides[2];
	struct pair *next; /* of those that are done */
	bool done;
};

static struct {
	uint16_t port, target;
} settings;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct sockaddr_in local(uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

static int listen_at(uint16_t port)
{
	struct sockaddr_in address = local(port);
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0)
		die("socket");
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) ||
	    listen(listener, SOMAXCONN))
		die("listen");
	return listener;
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in address = local(port);
	int target = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (target < 0 || connect(target, (struct sockaddr *)&address, sizeof address) ||
	    fcntl(target, F_SETFL, O_NONBLOCK))
		die("connect");
	return target;
}

static void set_up(struct pair *pair, int number, int socket)
{
	int on = 1;
	struct side *side = &pair->sides[number];
	*side = (struct side){ .pair = pair, .socket = socket };
	setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (pipe2(side->pipe, O_NONBLOCK | O_CLOEXEC) ||
	    fcntl(side->pipe[1], F_SETPIPE_SZ, PIPE_BYTES) < 0)
		die("pipe");
}

static void tear_down(struct pair *pair)
{
	for (int i = 0; i < 2; i++) {
		close(pair->sides[i].socket);
		close(pair->sides[i].pipe[0]);
		close(pair->sides[i].pipe[1]);
	}
	free(pair);
}

/* Move what has come from one side to the other. False if a socket has failed. */
static bool move(struct side *from, struct side *to)
{
	const unsigned flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
	for (;;) {
		if (!from->held && !from->ended) {
			ssize_t got = splice(from->socket, NULL, from->pipe[1], NULL,
					     PIPE_BYTES, flags);
			if (got < 0)
				return errno == EAGAIN || errno == EINTR;
			from->held = (size_t)got;
			from->ended = !got;
		}
		if (!from->held)
			break;
		ssize_t put = splice(from->pipe[0], NULL, to->socket, NULL, from->held,
				     flags);
		if (put < 0)
			return errno == EAGAIN || errno == EINTR;
		from->held -= (size_t)put;
	}
	if (!from->closed) {
		from->closed = true;
		shutdown(to->socket, SHUT_WR);
	}
	return true;
}

static void watch(int epoll, struct side *side, const struct side *other)
{
	uint32_t wanted = 0;
	if (!side->ended && !side->held)
		wanted |= EPOLLIN;
	if (other->held)
		wanted |= EPOLLOUT;
	if (wanted == side->watched)
		return;
	struct epoll_event event = { .events = wanted, .data.ptr = side };
	if (epoll_ctl(epoll, EPOLL_CTL_MOD, side->socket, &event))
		die("epoll_ctl");
	side->watched = wanted;
}

static void accept_one(int epoll, int listener)
{
	int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (client < 0)
		return;
	struct pair *pair = calloc(1, sizeof *pair);
	if (!pair)
		die("calloc");
	set_up(pair, 0, client);
	set_up(pair, 1, connect_to(settings.target));
	for (int i = 0; i < 2; i++) {
		struct side *side = &pair->sides[i];
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = side };
		side->watched = EPOLLIN;
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, side->socket, &event))
			die("epoll_ctl");
	}
}

static void serve(int epoll, int listener)
{
	struct epoll_event events[EVENTS];
	for (;;) {
		struct pair *done = NULL;
		int count = epoll_wait(epoll, events, EVENTS, -1);
		if (count < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < count; i++) {
			if (!events[i].data.ptr) {
				accept_one(epoll, listener);
				continue;
			}
			struct pair *pair = ((struct side *)events[i].data.ptr)->pair;
			if (pair->done)
				continue;
			struct side *a = &pair->sides[0], *b = &pair->sides[1];
			/* Short-circuit would leave the reply of a client that left. */
			bool fine = move(a, b);
			fine &= move(b, a);
			if (!fine || (a->closed && b->closed)) {
				/* Its other side may have an event behind this one. */
				pair->done = true;
				pair->next = done;
				done = pair;
				continue;
			}
			watch(epoll, a, b);
			watch(epoll, b, a);
		}
		while (done) {
			struct pair *next = done->next;
			tear_down(done);
			done = next;
		}
	}
}

static uint16_t port_of(const char *text)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);
	if (*end || port < 1 || port > UINT16_MAX) {
		fprintf(stderr, "%s is no port\n", text);
		exit(2);
	}
	return (uint16_t)port;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "target", required_argument, NULL, 't' },
		{ 0 },
	};
	int option;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'p')
			settings.port = port_of(optarg);
		else if (option == 't')
			settings.target = port_of(optarg);
		else
			return 2;
	}
	if (!settings.port || !settings.target) {
		fprintf(stderr, "usage: relay --port=N --target=N\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int listener = listen_at(settings.port);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
		die("epoll");
	serve(epoll, listener);
}
