/*
 * Sends a server requests in a closed loop, and tells what came of them.
 *
 * Each thread has an epoll instance and its share of the connections; each
 * connection has one request in progress at any time. Bodies are sent from one
 * buffer that all share, by plain send()s of --piece bytes: splicing what
 * sendfile() sent costs the server more than what clients really send. Bodies that
 * come back are counted and discarded inside the kernel (MSG_TRUNC). So the load
 * costs little, but not nothing: it tells its own CPU time, too.
 *
 *     load --port=N --method=PUT|GET [--size=BYTES] [--piece=BYTES]
 *          [--apart=MICROSECONDS] [--prefix=NAME] [--folders=N] [--keys=N] [--once]
 *          [--absent | --tags=FILE | --range=BYTES]
 *          [--threads=N] [--connections=N] [--new] [--tls | --resume]
 *          [--seconds=S | --requests=N]
 *
 * Keys are /NAME/k0 and so on; NAME is "bench" if nothing is said. With --folders
 * they are spread over so many: /NAME/00/k0, /NAME/01/k1.
 *
 * Connection number c walks through the keys c, c + connections, and so on, so
 * that no two write one key at once if the number of keys is a multiple of that
 * of the connections. With --once each key is used once: whichever connection
 * begins a request takes the next key. More requests than keys are refused.
 *
 * Head and body of a PUT leave together, as far as the socket takes them. With
 * --apart the head leaves alone, as from many programs, and the body follows so much
 * later.
 *
 * Values have --size bytes. With --absent there are none, and GET has to be
 * answered with 404. With --tags each GET is If-None-Match with the entity tag of
 * its key, one line of the file for each key, and has to be answered with 304.
 * With --range each GET asks for so many bytes at a random place of the value; the
 * places are the same in every run.
 *
 * After so many seconds, or with SIGTERM, no request is begun any more; but each
 * connection has one, however late its thread came to run. Those in progress are
 * waited for after the time, and left after SIGTERM. So what the server spent was
 * spent for requests that count.
 *
 * With --new each request has a connection of its own and says "Connection:
 * close"; the server closes, and the next one begins when it has. Who closes first
 * keeps the port pair in TIME_WAIT: there it is the server's side, which takes a
 * new connection from the same port any time (RFC 9293, 3.6.1), so ports do not
 * run out. A request's time then counts from connect() to the last byte.
 *
 * With --tls (compiled with -DTLS) all of it goes over TLS, whatever the certificate.
 * With --resume it does, and each connection but the first of each client resumes the
 * session of the one before; it is an error if the server does not.
 *
 * An error is a status that was not expected (200 for a plain GET, 200, 201 or 204
 * for PUT), a body of another size, a reply that cannot be understood, or a
 * connection that ended before its reply. The connection is then opened again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum {
	HEAD_BYTES = 4096, /* the longest head of a reply */
	/* Of a body that comes back, taken by one recv(). */
	DISCARD_BYTES = 16 * 1024 * 1024,
	EVENTS = 256,
	/* Errors in a row after which a server counts as gone. */
	PATIENCE = 1000,
	/* Waiting for requests in progress at the end. */
	REST_SECONDS = 20,
	/*
	 * Latencies are counted in buckets of 1/64 of their power of two, so that a
	 * percentile is known to 1.6 %.
	 */
	SUB_BITS = 6,
	BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS,
};

static struct {
	uint16_t port;
	bool put, fresh;
	bool once, absent;
	bool tls, resume;
	uint64_t apart; /* nanoseconds; 0: head and body leave together */
	uint64_t size;
	uint64_t range; /* 0: all of the value */
	size_t piece; /* of a body, given to one send() */
	const char *prefix;
	int folders, keys, threads, connections;
	char **tags; /* of the keys, or NULL */
	double seconds;
	long requests; /* in all; negative: as many as the time allows */
} settings = {
	.piece = 1024 * 1024, .prefix = "bench", .keys = 1, .threads = 1, .connections = 1, .seconds = 1, .requests = -1,
};

static char *body;
static atomic_long left;        /* requests that may still begin */
static atomic_int next_key;     /* with --once */
static volatile sig_atomic_t stopped;
static uint64_t began;          /* nanoseconds, as clock() */

enum state { SENDING, RECEIVING, CLOSING, IDLE };

struct connection {
	int socket;
	enum state state;
	bool wants_out;
	bool begun; /* its first request */
	uint64_t started;
	int key;
	uint64_t random;
	/* The request. */
	size_t head_size;
	uint64_t sent; /* of head and body */
	uint64_t due; /* when the body leaves, if it waits for that */
	struct connection *behind; /* whose body leaves next */
	/* The reply. */
	int broken; /* what sending failed with */
	size_t have;
	bool head_done, will_close;
	uint64_t body_left;
	char head[512];
	char in[HEAD_BYTES];
#ifdef TLS
	SSL *tls;
	SSL_SESSION *session;
	bool wants_in; /* TLS has to read before it can go on writing */
	bool resumes;
#endif
};

struct worker {
	pthread_t thread;
	int epoll, first, count, active;
	long requests, errors, errors_in_a_row, connects;
	char *first_error;
	uint64_t ended, longest;
	uint64_t latencies[BUCKETS];
	struct connection *held, **last_held; /* in the order in which they are due */
	struct connection *connections;
};

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- Latencies --------------------------------------------------------- */

static unsigned bucket_of(uint64_t value)
{
	int shift;

	if (value < 1 << SUB_BITS)
		return (unsigned)value;
	shift = 63 - __builtin_clzll(value) - SUB_BITS;
	return (unsigned)(((uint64_t)shift << SUB_BITS) + (value >> shift));
}

/* The middle of a bucket. */
static double value_of(unsigned bucket)
{
	unsigned shift;

	if (bucket < 2 << SUB_BITS)
		return bucket;
	shift = (bucket >> SUB_BITS) - 1;
	return ldexp((bucket & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 0.5,
		     (int)shift);
}

static double percentile(const uint64_t *latencies, long total, double share)
{
	double wanted = ceil(share * (double)total), seen = 0;

	for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
		seen += (double)latencies[bucket];
		if (seen >= wanted && seen > 0)
			return value_of(bucket) / 1e9;
	}
	return 0;
}

/* ---- TLS, if there is any ----------------------------------------------- */

#ifdef TLS
static SSL_CTX *tls_context;

/* Keep the last session of a connection's server. */
static int keep_session(SSL *tls, SSL_SESSION *session)
{
	struct connection *connection = SSL_get_app_data(tls);

	SSL_SESSION_free(connection->session);
	connection->session = session;
	return 1;
}

static void prepare_tls(void)
{
	if (!settings.tls)
		return;
	tls_context = SSL_CTX_new(TLS_client_method());
	if (!tls_context)
		die("SSL_CTX_new");
	SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE
			 | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(tls_context, 1);
	if (settings.resume) {
		SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_CLIENT
					       | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(tls_context, keep_session);
	}
}

static void begin_tls(struct connection *connection)
{
	if (!settings.tls)
		return;
	connection->tls = SSL_new(tls_context);
	if (!connection->tls || !SSL_set_fd(connection->tls, connection->socket))
		die("SSL_new");
	SSL_set_app_data(connection->tls, connection);
	SSL_set_connect_state(connection->tls);
	connection->resumes = connection->session;
	if (connection->resumes)
		SSL_set_session(connection->tls, connection->session);
}

static void end_tls(struct connection *connection)
{
	if (!connection->tls)
		return;
	/* As if both had said goodbye: else the session could not be resumed. */
	SSL_set_shutdown(connection->tls, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
	SSL_free(connection->tls);
	connection->tls = NULL;
}

/* As send() or recv(), given what SSL_write() or SSL_read() returned. */
static ssize_t outcome(struct connection *connection, int done)
{
	int error;

	if (done > 0)
		return done;
	error = SSL_get_error(connection->tls, done);
	ERR_clear_error();
	connection->wants_in = error == SSL_ERROR_WANT_READ;
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN
		: EPROTO;
	return -1;
}

static bool waits_for_input(const struct connection *connection)
{
	return connection->tls && connection->wants_in;
}

/* Whether the session should have been resumed, and was not. */
static bool is_anew(const struct connection *connection)
{
	return connection->resumes && !SSL_session_reused(connection->tls);
}
#else
static void prepare_tls(void)
{
	if (settings.tls) {
		fputs("load: compiled without TLS\n", stderr);
		exit(2);
	}
}
static void begin_tls(struct connection *connection) { (void)connection; }
static void end_tls(struct connection *connection) { (void)connection; }
static bool waits_for_input(const struct connection *connection)
{
	(void)connection;
	return false;
}
#endif

static ssize_t put_bytes(struct connection *connection, const char *bytes, size_t size,
			 int flags)
{
#ifdef TLS
	if (connection->tls)
		return outcome(connection, SSL_write(connection->tls, bytes,
						     (int)(size < INT32_MAX ? size : INT32_MAX)));
#endif
	return send(connection->socket, bytes, size, MSG_NOSIGNAL | flags);
}

/* Into `bytes`, or nowhere (NULL). */
static ssize_t get_bytes(struct connection *connection, char *bytes, size_t size)
{
#ifdef TLS
	static _Thread_local char nowhere[64 * 1024];

	if (connection->tls) {
		if (!bytes && size > sizeof nowhere)
			size = sizeof nowhere;
		return outcome(connection, SSL_read(connection->tls, bytes ? bytes : nowhere,
						    (int)size));
	}
#endif
	return recv(connection->socket, bytes, size, bytes ? 0 : MSG_TRUNC);
}

/* ---- One connection ---------------------------------------------------- */

static void start(struct worker *worker, struct connection *connection);

static void watch(struct worker *worker, struct connection *connection, bool out)
{
	struct epoll_event event = {
		.events = out ? EPOLLOUT : EPOLLIN,
		.data.ptr = connection,
	};
	if (connection->wants_out == out)
		return;
	connection->wants_out = out;
	if (epoll_ctl(worker->epoll, EPOLL_CTL_MOD, connection->socket, &event))
		die("epoll_ctl");
}

static void hang_up(struct connection *connection)
{
	end_tls(connection);
	if (connection->socket >= 0)
		close(connection->socket);
	connection->socket = -1;
}

static bool connect_anew(struct worker *worker, struct connection *connection)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(settings.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
	int one = 1;

	connection->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connection->socket < 0)
		die("socket");
	worker->connects++;
	setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	connection->wants_out = false;
	if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, connection->socket, &event))
		die("epoll_ctl");
	begin_tls(connection);
	return !connect(connection->socket, (struct sockaddr *)&address, sizeof address)
	       || errno == EINPROGRESS;
}

static void fail(struct worker *worker, struct connection *connection, const char *why)
{
	hang_up(connection);
	connection->state = IDLE;
	worker->active--;
	if (stopped)
		return;
	worker->errors++;
	if (!worker->first_error && asprintf(&worker->first_error, "%s", why) < 0)
		die("asprintf");
	if (++worker->errors_in_a_row < PATIENCE)
		start(worker, connection);
}

static void finish(struct worker *worker, struct connection *connection)
{
	if (settings.fresh || connection->will_close)
		hang_up(connection);
	connection->state = IDLE;
	worker->active--;
	start(worker, connection);
}

static void count(struct worker *worker, struct connection *connection)
{
	uint64_t ended = now(), taken = ended - connection->started;

	worker->requests++;
	worker->errors_in_a_row = 0;
	worker->ended = ended;
	worker->latencies[bucket_of(taken)]++;
	if (taken > worker->longest)
		worker->longest = taken;
}

static bool is_expected(int status)
{
	if (settings.put)
		return status == 200 || status == 201 || status == 204;
	return status == (settings.absent ? 404 : settings.tags ? 304
			  : settings.range ? 206 : 200);
}

/* Of the body that a request moves. */
static uint64_t wanted_bytes(void)
{
	if (settings.absent || settings.tags)
		return 0;
	return settings.range ? settings.range : settings.size;
}

/* Understand the head of a reply, or say what is wrong with it. */
static const char *parse(struct connection *connection, char *end)
{
	static _Thread_local char unexpected[64];
	uint64_t length = 0;
	bool has_length = false;
	int status;
	size_t came = connection->have - (size_t)(end + 4 - connection->in);

	*end = 0;
	if (strncmp(connection->in, "HTTP/1.", 7) || end - connection->in < 12)
		return "the reply is no HTTP";
	status = atoi(connection->in + 9);
	connection->will_close = false;
	for (char *line = strstr(connection->in, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (!strncasecmp(line, "Content-Length:", 15)) {
			length = strtoull(line + 15, NULL, 10);
			has_length = true;
		} else if (!strncasecmp(line, "Connection:", 11)) {
			connection->will_close = !strncasecmp(line + 11, " close", 6);
		}
	}
	if (!is_expected(status)) {
		snprintf(unexpected, sizeof unexpected, "status %d", status);
		return unexpected;
	}
	if (status == 204 || status == 304)
		length = 0; /* whatever it says: there is no body (RFC 9112, 6.3) */
	else if (!has_length)
		return "the reply has no Content-Length";
	if (!settings.put && !settings.absent && length != wanted_bytes())
		return "the body has another size";
	if (came > length)
		return "more came than the reply";
	connection->body_left = length - came;
	connection->head_done = true;
	return NULL;
}

static void receive(struct worker *worker, struct connection *connection)
{
	ssize_t came;

	while (!connection->head_done) {
		const char *wrong;
		char *end;
		came = get_bytes(connection, connection->in + connection->have,
				 HEAD_BYTES - 1 - connection->have);
		if (came < 0 && errno == EAGAIN)
			return;
		if (came <= 0)
			return fail(worker, connection,
				    came ? strerror(errno)
				    : connection->broken ? strerror(connection->broken)
				    : "closed before the reply");
		connection->have += (size_t)came;
		connection->in[connection->have] = 0;
		end = memmem(connection->in, connection->have, "\r\n\r\n", 4);
		if (!end && connection->have == HEAD_BYTES - 1)
			return fail(worker, connection, "the reply's head is too long");
		if (!end)
			return;
		wrong = parse(connection, end);
		if (wrong)
			return fail(worker, connection, wrong);
	}
	while (connection->body_left) {
		size_t wanted = connection->body_left < DISCARD_BYTES
				? connection->body_left : DISCARD_BYTES;
		came = get_bytes(connection, NULL, wanted);
		if (came < 0 && errno == EAGAIN)
			return;
		if (came <= 0)
			return fail(worker, connection,
				    came ? strerror(errno) : "closed within the body");
		connection->body_left -= (uint64_t)came;
	}
#ifdef TLS
	if (connection->tls && is_anew(connection))
		return fail(worker, connection, "the session was not resumed");
#endif
	count(worker, connection);
	if (settings.fresh)
		connection->state = CLOSING;
	else
		finish(worker, connection);
}

/* Wait for the server to close, so that TIME_WAIT is its own. */
static void await_close(struct worker *worker, struct connection *connection)
{
	char byte;
	ssize_t came = get_bytes(connection, &byte, 1);

	if (came > 0)
		fail(worker, connection, "more came than the reply");
	else if (!came || errno != EAGAIN)
		finish(worker, connection);
}

/* Let the body wait. */
static void hold(struct worker *worker, struct connection *connection)
{
	watch(worker, connection, false);
	connection->due = now() + settings.apart;
	connection->behind = NULL;
	*(worker->held ? worker->last_held : &worker->held) = connection;
	worker->last_held = &connection->behind;
}

static void send_on(struct worker *worker, struct connection *connection)
{
	uint64_t total = connection->head_size + (settings.put ? settings.size : 0);

	while (connection->sent < total) {
		ssize_t sent;
		if (connection->sent < connection->head_size) {
			/* Head and body leave in one segment, as far as they fit. */
			size_t size = connection->head_size - connection->sent;
			sent = put_bytes(connection, connection->head + connection->sent,
					 size, settings.put && settings.size && !settings.apart
						? MSG_MORE : 0);
			if (settings.apart && sent == (ssize_t)size && settings.size) {
				connection->sent += size;
				return hold(worker, connection);
			}
		} else {
			uint64_t rest = total - connection->sent;
			sent = put_bytes(connection, body,
					 rest < settings.piece ? rest : settings.piece, 0);
		}
		if (sent < 0 && errno == EAGAIN)
			return watch(worker, connection, !waits_for_input(connection));
		if (sent < 0) {
			/* The server may have said why before it closed. */
			connection->broken = errno;
			break;
		}
		connection->sent += (uint64_t)sent;
	}
	watch(worker, connection, false);
	connection->state = RECEIVING;
}

/* May another request begin? Takes it from those left. */
static bool may_start(struct connection *connection)
{
	bool first = !connection->begun;

	connection->begun = true;
	if (stopped)
		return false;
	if (settings.requests >= 0)
		return atomic_fetch_sub(&left, 1) > 0;
	return first || (double)(now() - began) < settings.seconds * 1e9;
}

/* Add a part to the head of a request. */
__attribute__((format(printf, 2, 3)))
static void add(struct connection *connection, const char *format, ...)
{
	size_t room = sizeof connection->head - connection->head_size;
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(connection->head + connection->head_size, room, format,
			 arguments);
	va_end(arguments);
	if (size < 0 || (size_t)size >= room) {
		fputs("load: the head of a request is too long\n", stderr);
		exit(1);
	}
	connection->head_size += (size_t)size;
}

/* xorshift64 */
static uint64_t random_number(struct connection *connection)
{
	connection->random ^= connection->random << 13;
	connection->random ^= connection->random >> 7;
	connection->random ^= connection->random << 17;
	return connection->random;
}

static void write_head(struct connection *connection)
{
	int key = connection->key;

	connection->head_size = 0;
	add(connection, "%s /%s/", settings.put ? "PUT" : "GET", settings.prefix);
	if (settings.folders)
		add(connection, "%02x/", key % settings.folders);
	add(connection, "k%d HTTP/1.1\r\nHost: 127.0.0.1\r\n", key);
	if (settings.put)
		add(connection, "Content-Length: %ju\r\n", (uintmax_t)settings.size);
	if (settings.tags)
		add(connection, "If-None-Match: %s\r\n", settings.tags[key]);
	if (settings.range) {
		uint64_t first = random_number(connection)
				 % (settings.size - settings.range + 1);
		add(connection, "Range: bytes=%ju-%ju\r\n", (uintmax_t)first,
		    (uintmax_t)(first + settings.range - 1));
	}
	add(connection, "%s\r\n", settings.fresh ? "Connection: close\r\n" : "");
}

static void start(struct worker *worker, struct connection *connection)
{
	if (!may_start(connection))
		return;
	connection->started = now();
	worker->active++;
	connection->state = SENDING;
	connection->sent = 0;
	connection->broken = 0;
	connection->have = 0;
	connection->head_done = false;
	if (settings.once)
		connection->key = atomic_fetch_add(&next_key, 1);
	write_head(connection);
	connection->key = (connection->key + settings.connections) % settings.keys;
	if (connection->socket < 0 && !connect_anew(worker, connection)) {
		fail(worker, connection, strerror(errno));
		return;
	}
	send_on(worker, connection);
}

/* ---- Threads ----------------------------------------------------------- */

static void serve(struct worker *worker, struct connection *connection)
{
	switch (connection->state) {
	case SENDING:
		/* One that is held fails when its body is sent. */
		if (!connection->due)
			send_on(worker, connection);
		break;
	case RECEIVING:
		receive(worker, connection);
		break;
	case CLOSING:
		await_close(worker, connection);
		break;
	case IDLE:
		/* A connection that is kept is closed: the next request opens anew. */
		hang_up(connection);
		break;
	}
}

/* Send the bodies that are due. */
static void release(struct worker *worker)
{
	while (worker->held && worker->held->due <= now()) {
		struct connection *connection = worker->held;
		worker->held = connection->behind;
		connection->due = 0;
		send_on(worker, connection);
	}
}

/* Wait for events: not for ever, as SIGTERM may come to another thread. */
static int wait_for_events(struct worker *worker, struct epoll_event *events)
{
	uint64_t most = 100 * 1000 * 1000, present = now();

	if (worker->held)
		most = worker->held->due <= present ? 0 : worker->held->due - present;
	return epoll_pwait2(worker->epoll, events, EVENTS,
			    &(struct timespec){ .tv_nsec = (long)most }, NULL);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS];
	uint64_t latest = settings.requests >= 0 ? UINT64_MAX
		: began + (uint64_t)((settings.seconds + REST_SECONDS) * 1e9);

	for (int i = 0; i < worker->count; i++)
		start(worker, &worker->connections[i]);
	while (worker->active && !stopped) {
		int ready = wait_for_events(worker, events);
		for (int i = 0; i < ready; i++)
			serve(worker, events[i].data.ptr);
		release(worker);
		if (now() > latest) {
			worker->errors += worker->active;
			worker->first_error = strdup("no reply for a long time");
			break;
		}
	}
	return NULL;
}

static void prepare(struct worker *worker, int number)
{
	/* Shares differ by one at most. */
	worker->first = settings.connections * number / settings.threads;
	worker->count = settings.connections * (number + 1) / settings.threads
			- worker->first;
	worker->connections = calloc((size_t)worker->count, sizeof *worker->connections);
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!worker->connections || worker->epoll < 0)
		die("prepare");
	for (int i = 0; i < worker->count; i++) {
		worker->connections[i].socket = -1;
		worker->connections[i].state = IDLE;
		worker->connections[i].key = (worker->first + i) % settings.keys;
		worker->connections[i].random = (uint64_t)(worker->first + i + 1)
						* 0x9e3779b97f4a7c15u;
	}
}

static double seconds_of(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static void report(const struct worker *workers)
{
	static uint64_t latencies[BUCKETS];
	struct rusage usage;
	uint64_t ended = began, longest = 0;
	long requests = 0, errors = 0, connects = 0;
	const char *first_error = NULL;

	for (int i = 0; i < settings.threads; i++) {
		const struct worker *worker = &workers[i];
		requests += worker->requests;
		errors += worker->errors;
		connects += worker->connects;
		if (worker->ended > ended)
			ended = worker->ended;
		if (worker->longest > longest)
			longest = worker->longest;
		if (worker->first_error)
			first_error = worker->first_error;
		for (int bucket = 0; bucket < BUCKETS; bucket++)
			latencies[bucket] += worker->latencies[bucket];
	}
	getrusage(RUSAGE_SELF, &usage);
	printf("{\"requests\": %ld, \"seconds\": %.6f, \"bytes\": %ju, \"errors\": %ld,"
	       " \"first_error\": %s%s%s, \"connects\": %ld, \"p50_seconds\": %.9f,"
	       " \"p99_seconds\": %.9f, \"max_seconds\": %.9f, \"cpu_seconds\": %.6f}\n",
	       requests, (double)(ended - began) / 1e9,
	       (uintmax_t)((uint64_t)requests * wanted_bytes()), errors,
	       first_error ? "\"" : "", first_error ? first_error : "null",
	       first_error ? "\"" : "", connects, percentile(latencies, requests, 0.5),
	       percentile(latencies, requests, 0.99), (double)longest / 1e9,
	       seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
}

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static void usage(void)
{
	fputs("usage: load --port=N --method=PUT|GET [--size=BYTES] [--piece=BYTES]"
	      " [--apart=MICROSECONDS] [--prefix=NAME] [--folders=N] [--keys=N] [--once]"
	      " [--absent|--tags=FILE|--range=BYTES] [--threads=N] [--connections=N]"
	      " [--new] [--tls|--resume] [--seconds=S|--requests=N]\n",
	      stderr);
	exit(2);
}

/* The entity tags of the keys, one in each line of a file. */
static void read_tags(const char *path)
{
	FILE *file = fopen(path, "r");
	size_t room = 0;

	settings.tags = calloc((size_t)settings.keys, sizeof *settings.tags);
	if (!file || !settings.tags)
		die(path);
	for (int key = 0; key < settings.keys; key++) {
		ssize_t size = getline(&settings.tags[key], &room, file);
		if (size < 1) {
			fprintf(stderr, "load: %s has no tag for key %d\n", path, key);
			exit(2);
		}
		settings.tags[key][strcspn(settings.tags[key], "\r\n")] = 0;
		room = 0;
	}
	fclose(file);
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "method", required_argument, NULL, 'm' },
		{ "size", required_argument, NULL, 's' },
		{ "piece", required_argument, NULL, 'b' },
		{ "apart", required_argument, NULL, 'i' },
		{ "prefix", required_argument, NULL, 'x' },
		{ "folders", required_argument, NULL, 'f' },
		{ "keys", required_argument, NULL, 'k' },
		{ "once", no_argument, NULL, 'o' },
		{ "absent", no_argument, NULL, 'a' },
		{ "tags", required_argument, NULL, 'e' },
		{ "range", required_argument, NULL, 'g' },
		{ "threads", required_argument, NULL, 't' },
		{ "connections", required_argument, NULL, 'c' },
		{ "new", no_argument, NULL, 'n' },
		{ "tls", no_argument, NULL, 'l' },
		{ "resume", no_argument, NULL, 'u' },
		{ "seconds", required_argument, NULL, 'd' },
		{ "requests", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	bool has_method = false;
	const char *tags = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			settings.port = (uint16_t)atoi(optarg);
			break;
		case 'm':
			settings.put = !strcmp(optarg, "PUT");
			has_method = settings.put || !strcmp(optarg, "GET");
			break;
		case 's':
			settings.size = strtoull(optarg, NULL, 10);
			break;
		case 'b':
			settings.piece = strtoull(optarg, NULL, 10);
			break;
		case 'i':
			settings.apart = strtoull(optarg, NULL, 10) * 1000;
			break;
		case 'x':
			settings.prefix = optarg;
			break;
		case 'k':
			settings.keys = atoi(optarg);
			break;
		case 'f':
			settings.folders = atoi(optarg);
			break;
		case 'o':
			settings.once = true;
			break;
		case 'a':
			settings.absent = true;
			break;
		case 'e':
			tags = optarg;
			break;
		case 'g':
			settings.range = strtoull(optarg, NULL, 10);
			break;
		case 't':
			settings.threads = atoi(optarg);
			break;
		case 'c':
			settings.connections = atoi(optarg);
			break;
		case 'n':
			settings.fresh = true;
			break;
		case 'l':
			settings.tls = true;
			break;
		case 'u':
			settings.tls = settings.resume = true;
			break;
		case 'd':
			settings.seconds = atof(optarg);
			break;
		case 'r':
			settings.requests = atol(optarg);
			break;
		default:
			usage();
		}
	}
	if (!settings.port || !has_method || !settings.piece || settings.keys < 1
	    || settings.threads < 1 || settings.folders < 0
	    || settings.connections < 1 || strlen(settings.prefix) > 100 || optind < argc
	    || settings.absent + !!tags + !!settings.range > !settings.put
	    || settings.apart > settings.put * 100000000u
	    || settings.range > settings.size || (settings.once && settings.requests < 0))
		usage();
	if (settings.once && settings.requests > settings.keys) {
		fprintf(stderr, "load: %ld requests, each for a key of its own, need as many"
			" keys; there are %d\n", settings.requests, settings.keys);
		exit(2);
	}
	if (tags)
		read_tags(tags);
}

int main(int argc, char **argv)
{
	struct worker *workers;

	read_options(argc, argv);
	signal(SIGTERM, stop);
	/* Over TLS, a server that has closed would end this too. */
	signal(SIGPIPE, SIG_IGN);
	prepare_tls();
	workers = calloc((size_t)settings.threads, sizeof *workers);
	body = malloc(settings.piece);
	if (!workers || !body)
		die("malloc");
	/* Not zeros: nobody shall have an easy time with them. */
	for (size_t i = 0; i < settings.piece; i++)
		body[i] = (char)(i * 2654435761u >> 13);
	atomic_init(&left, settings.requests);
	for (int i = 0; i < settings.threads; i++)
		prepare(&workers[i], i);
	began = now();
	for (int i = 0; i < settings.threads; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("pthread_create");
	for (int i = 0; i < settings.threads; i++)
		pthread_join(workers[i].thread, NULL);
	report(workers);
	return 0;
}
