/*
 * A file server as the C server of the article is described: threads and epoll.
 *
 * Each thread has an epoll instance and a SO_REUSEPORT listener of its own and
 * shares nothing. PUT writes the body into the file as it comes, in place: a
 * reader can see half of a value, and a failed upload leaves half of one. That,
 * no timeouts and no log are what it saves beside kvd and nginx, and why it is
 * a yardstick and no server to use.
 *
 * Understood are HTTP/1.0 and 1.1 with Content-Length, keep-alive, pipelining,
 * Expect: 100-continue, If-None-Match with one entity tag, and Range with one range
 * that has both ends. Chunked bodies are refused (501).
 *
 *     server --port=N [--threads=N] [--put=readwrite|splice] [--sync]
 *            --root=FOLDER|--null
 *
 * With --sync, PUT syncs the file and the folder that it is in before it is answered:
 * one after the other, in the thread that serves the connection.
 * --null opens /dev/null in place of every file that is written.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	HEAD_BYTES = 16 * 1024,  /* the longest head; also what is read with it */
	CHUNK_BYTES = 64 * 1024, /* of the article: one read, one write */
	PIPE_BYTES = 1024 * 1024,
	EVENTS = 256,
	/* Reads of one connection before others get their turn. */
	TURNS = 16,
	TAG_BYTES = 64,
};

static struct {
	uint16_t port;
	int threads;
	bool splice;
	bool sync;
	bool null;
	int root; /* a descriptor of the folder; unused with --null */
} settings = { .threads = 2, .root = -1 };

enum state {
	READING_HEAD,
	READING_BODY,
	SENDING, /* what did not fit into the socket at once */
};

struct connection {
	int socket;
	enum state state;
	bool keep_alive;
	bool wants_out; /* epoll watches for room rather than for bytes */
	/* The upload or download in progress. */
	int file;
	int folder; /* of an upload that will be synced */
	int status; /* of the reply, once the body is complete */
	uint64_t body_left;
	off_t offset;
	/* A reply, or its head. */
	size_t reply_size, reply_sent;
	char reply[512];
	/* The head, and what came with it. */
	size_t have;
	char in[HEAD_BYTES];
};

struct worker {
	int epoll;
	int listener;
	int pipe[2];
	char chunk[CHUNK_BYTES];
};

enum method { GET, HEAD, PUT, DELETE, OTHER };

struct request {
	enum method method;
	char path[PATH_MAX]; /* decoded, relative to the root */
	uint64_t length;
	bool has_length, keep_alive, expects_continue;
	bool has_range;
	uint64_t first, last; /* of the range */
	char known[TAG_BYTES]; /* the entity tag of If-None-Match, or "" */
};

enum result {
	WAIT,  /* for the socket */
	GO_ON, /* the next state may have work */
	CLOSE,
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- Heads ------------------------------------------------------------- */

/* Is a comma separated list's member NAME in VALUE? */
static bool lists(const char *value, size_t size, const char *name)
{
	const char *end = value + size;
	size_t wanted = strlen(name);

	while (value < end) {
		const char *comma = memchr(value, ',', end - value);
		const char *stop = comma ? comma : end;
		const char *last = stop;
		while (value < last && (*value == ' ' || *value == '\t'))
			value++;
		while (last > value && (last[-1] == ' ' || last[-1] == '\t'))
			last--;
		if ((size_t)(last - value) == wanted
		    && !strncasecmp(value, name, wanted))
			return true;
		value = stop + 1;
	}
	return false;
}

static int hex(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	digit |= 0x20;
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/*
 * Decode a target into a relative path. False for what has no file: another
 * form than /..., no name, a NUL, or a segment "..", "." or "".
 */
static bool decode(const char *target, size_t size, char *path)
{
	const char *end = memchr(target, '?', size);
	char *out = path;

	if (!end)
		end = target + size;
	if (size < 2 || *target != '/' || end - target >= PATH_MAX)
		return false;
	for (target++; target < end; target++) {
		char byte = *target;
		if (byte == '%') {
			if (end - target < 3 || hex(target[1]) < 0 || hex(target[2]) < 0)
				return false;
			byte = (char)(hex(target[1]) << 4 | hex(target[2]));
			target += 2;
		}
		if (!byte)
			return false;
		*out++ = byte;
	}
	*out = 0;
	for (const char *segment = path;;) {
		size_t length = strcspn(segment, "/");
		if (!length || (length == 1 && segment[0] == '.')
		    || (length == 2 && segment[0] == '.' && segment[1] == '.'))
			return false;
		if (!segment[length])
			return true;
		segment += length + 1;
	}
}

static bool parse_length(const char *value, size_t size, struct request *request)
{
	uint64_t length = 0;

	if (!size || size > 18) /* so many digits cannot overflow */
		return false;
	for (size_t i = 0; i < size; i++) {
		if (value[i] < '0' || value[i] > '9')
			return false;
		length = length * 10 + (uint64_t)(value[i] - '0');
	}
	if (request->has_length && request->length != length)
		return false;
	request->has_length = true;
	request->length = length;
	return true;
}

/* A range with both ends; others are ignored, as a server may (RFC 9110, 14.2). */
static void parse_range(const char *value, size_t size, struct request *request)
{
	char text[64];
	int end = 0;

	if (size >= sizeof text)
		return;
	memcpy(text, value, size);
	text[size] = 0;
	if (sscanf(text, "bytes=%19ju-%19ju%n", &request->first, &request->last, &end) == 2
	    && (size_t)end == size && request->first <= request->last)
		request->has_range = true;
}

static int parse_field(const char *line, const char *end, struct request *request)
{
	const char *colon = memchr(line, ':', end - line);
	size_t name, size;

	if (!colon || colon == line || colon[-1] == ' ' || colon[-1] == '\t')
		return 400;
	name = colon - line;
	for (colon++; colon < end && (*colon == ' ' || *colon == '\t'); colon++)
		;
	while (end > colon && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	size = end - colon;

	switch (name) { /* comparing lengths first spares most comparisons */
	case 5:
		if (!strncasecmp(line, "Range", 5))
			parse_range(colon, size, request);
		break;
	case 6:
		if (!strncasecmp(line, "Expect", 6))
			request->expects_continue = lists(colon, size, "100-continue");
		break;
	case 10:
		if (!strncasecmp(line, "Connection", 10)) {
			if (lists(colon, size, "close"))
				request->keep_alive = false;
			else if (lists(colon, size, "keep-alive"))
				request->keep_alive = true;
		}
		break;
	case 13:
		if (!strncasecmp(line, "If-None-Match", 13) && size < TAG_BYTES) {
			memcpy(request->known, colon, size);
			request->known[size] = 0;
		}
		break;
	case 14:
		if (!strncasecmp(line, "Content-Length", 14)
		    && !parse_length(colon, size, request))
			return 400;
		break;
	case 17:
		if (!strncasecmp(line, "Transfer-Encoding", 17))
			return 501;
		break;
	}
	return 0;
}

/*
 * Understand a head; END is behind its last line. Gives 0, or the status that
 * tells what is wrong with it.
 */
static int parse(const char *head, const char *end, struct request *request)
{
	const char *line_end = memmem(head, end - head, "\r\n", 2);
	const char *target, *version;

	request->length = 0;
	request->has_length = request->expects_continue = request->has_range = false;
	request->known[0] = 0;
	target = memchr(head, ' ', line_end - head);
	if (!target)
		return 400;
	version = memchr(target + 1, ' ', line_end - target - 1);
	if (!version || line_end - version != 9 || strncmp(version, " HTTP/1.", 8))
		return 400;
	request->keep_alive = version[8] != '0';
	switch (target - head) {
	case 3:
		request->method = !strncmp(head, "GET", 3) ? GET
				: !strncmp(head, "PUT", 3) ? PUT : OTHER;
		break;
	case 4:
		request->method = !strncmp(head, "HEAD", 4) ? HEAD : OTHER;
		break;
	case 6:
		request->method = !strncmp(head, "DELETE", 6) ? DELETE : OTHER;
		break;
	default:
		request->method = OTHER;
	}
	if (!decode(target + 1, version - target - 1, request->path))
		return 400;
	for (const char *line = line_end + 2; line < end;) {
		int wrong;
		line_end = memmem(line, end - line, "\r\n", 2);
		wrong = parse_field(line, line_end, request);
		if (wrong)
			return wrong;
		line = line_end + 2;
	}
	return 0;
}

/* ---- Replies ----------------------------------------------------------- */

static const char *reason(int status)
{
	switch (status) {
	case 200: return "OK";
	case 201: return "Created";
	case 204: return "No Content";
	case 206: return "Partial Content";
	case 304: return "Not Modified";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 411: return "Length Required";
	case 416: return "Range Not Satisfiable";
	case 431: return "Request Header Fields Too Large";
	case 501: return "Not Implemented";
	default: return "Internal Server Error";
	}
}

static void watch(struct worker *worker, struct connection *connection, bool out)
{
	struct epoll_event event = {
		.events = out ? EPOLLOUT : EPOLLIN,
		.data.ptr = connection,
	};
	if (connection->wants_out == out)
		return;
	connection->wants_out = out;
	epoll_ctl(worker->epoll, EPOLL_CTL_MOD, connection->socket, &event);
}

/* Close the file in progress, if there is one. */
static void leave_file(struct connection *connection)
{
	if (connection->file >= 0)
		close(connection->file);
	connection->file = -1;
	if (connection->folder >= 0)
		close(connection->folder);
	connection->folder = -1;
}

/* Send what there is of the reply, its head first. */
static enum result send_on(struct worker *worker, struct connection *connection)
{
	while (connection->reply_sent < connection->reply_size) {
		/* The file follows in the same segment where it can. */
		int more = connection->file >= 0 && connection->body_left ? MSG_MORE : 0;
		ssize_t sent = send(connection->socket,
				    connection->reply + connection->reply_sent,
				    connection->reply_size - connection->reply_sent,
				    MSG_NOSIGNAL | more);
		if (sent < 0 && errno == EAGAIN)
			goto wait;
		if (sent < 0)
			return CLOSE;
		connection->reply_sent += (size_t)sent;
	}
	for (int turn = 0; connection->file >= 0 && connection->body_left; turn++) {
		ssize_t sent;
		if (turn == TURNS)
			goto wait;
		sent = sendfile(connection->socket, connection->file,
				&connection->offset, connection->body_left);
		if (sent < 0 && errno == EAGAIN)
			goto wait;
		if (sent <= 0) /* also a file that became shorter */
			return CLOSE;
		connection->body_left -= (uint64_t)sent;
	}
	leave_file(connection);
	if (!connection->keep_alive)
		return CLOSE;
	watch(worker, connection, false);
	connection->state = READING_HEAD;
	return GO_ON;
wait:
	watch(worker, connection, true);
	connection->state = SENDING;
	return WAIT;
}

/*
 * A reply whose body, of LENGTH bytes, is the file in progress or nothing, with FIELDS
 * of its own.
 */
static enum result reply_with(struct worker *worker, struct connection *connection,
			      int status, uint64_t length, const char *fields)
{
	char size[48] = "";

	/* 204 and 304 have no Content-Length (RFC 9110, 8.6). */
	if (status != 204 && status != 304)
		snprintf(size, sizeof size, "Content-Length: %ju\r\n", (uintmax_t)length);
	connection->reply_sent = 0;
	connection->reply_size = (size_t)snprintf(
		connection->reply, sizeof connection->reply, "HTTP/1.1 %d %s\r\n%s%s%s\r\n",
		status, reason(status), size, fields,
		connection->keep_alive ? "" : "Connection: close\r\n");
	return send_on(worker, connection);
}

static enum result reply(struct worker *worker, struct connection *connection,
			 int status, uint64_t length)
{
	return reply_with(worker, connection, status, length, "");
}

static enum result refuse(struct worker *worker, struct connection *connection,
			  int status)
{
	leave_file(connection);
	connection->keep_alive = false;
	return reply(worker, connection, status, 0);
}

/* ---- Requests ---------------------------------------------------------- */

/* Open the folder of a path, or give -1. */
static int open_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t size = slash ? (size_t)(slash - path) : 0;

	memcpy(folder, path, size);
	folder[size] = 0;
	return openat(settings.root, slash ? folder : ".",
		      O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/*
 * Make the folders above a path, as far as they are missing, each synced into the one
 * above it if it is to last.
 */
static void make_folders(char *path)
{
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (!mkdirat(settings.root, path, 0777) && settings.sync) {
			int above = open_folder(path);
			if (above < 0 || fsync(above))
				die("sync of a folder");
			close(above);
		}
		*slash = '/';
	}
}

/* Open the file of an upload and note the status of a success. */
static int open_upload(struct connection *connection, char *path)
{
	const int flags = O_WRONLY | O_TRUNC | O_CLOEXEC;

	connection->status = 204;
	if (settings.null)
		return open("/dev/null", O_WRONLY | O_CLOEXEC);
	connection->file = openat(settings.root, path, flags);
	if (connection->file >= 0 || errno != ENOENT)
		return connection->file;
	connection->status = 201;
	connection->file = openat(settings.root, path, flags | O_CREAT, 0666);
	if (connection->file >= 0 || errno != ENOENT)
		return connection->file;
	make_folders(path);
	return openat(settings.root, path, flags | O_CREAT, 0666);
}

static bool write_all(int file, const char *bytes, size_t size)
{
	while (size) {
		ssize_t written = write(file, bytes, size);
		if (written < 0)
			return false;
		bytes += written;
		size -= (size_t)written;
	}
	return true;
}

/* Forget the first bytes of what was read. */
static void consume(struct connection *connection, size_t size)
{
	connection->have -= size;
	memmove(connection->in, connection->in + size, connection->have);
}

static enum result body_complete(struct worker *worker, struct connection *connection)
{
	if (connection->folder >= 0
	    && (fsync(connection->file) || fsync(connection->folder)))
		return refuse(worker, connection, 500);
	leave_file(connection);
	return reply(worker, connection, connection->status, 0);
}

static enum result put(struct worker *worker, struct connection *connection,
		       struct request *request)
{
	size_t came;

	if (!request->has_length)
		return refuse(worker, connection, 411);
	connection->file = open_upload(connection, request->path);
	if (connection->file < 0)
		return refuse(worker, connection,
			      errno == EISDIR || errno == ENOTDIR ? 400 : 500);
	if (settings.sync && !settings.null) {
		connection->folder = open_folder(request->path);
		if (connection->folder < 0)
			return refuse(worker, connection, 500);
	}
	connection->body_left = request->length;

	came = connection->have < request->length ? connection->have : request->length;
	if (!write_all(connection->file, connection->in, came))
		return refuse(worker, connection, 500);
	consume(connection, came);
	connection->body_left -= came;
	if (!connection->body_left)
		return body_complete(worker, connection);
	if (request->expects_continue && !came) {
		static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
		/* So few bytes find room in an empty socket. */
		if (send(connection->socket, go_on, sizeof go_on - 1, MSG_NOSIGNAL) < 0)
			return CLOSE;
	}
	connection->state = READING_BODY;
	return GO_ON;
}

static enum result get(struct worker *worker, struct connection *connection,
		       struct request *request)
{
	struct stat status;
	uint64_t size;
	char tag[TAG_BYTES], fields[256];

	if (settings.null)
		return reply(worker, connection, 404, 0);
	connection->file = openat(settings.root, request->path, O_RDONLY | O_CLOEXEC);
	if (connection->file < 0 || fstat(connection->file, &status)
	    || !S_ISREG(status.st_mode)) {
		leave_file(connection);
		return reply(worker, connection, 404, 0);
	}
	size = (uint64_t)status.st_size;
	snprintf(tag, sizeof tag, "\"%jx-%jx\"",
		 (uintmax_t)status.st_mtim.tv_sec * 1000000000
		 + (uintmax_t)status.st_mtim.tv_nsec, (uintmax_t)size);
	snprintf(fields, sizeof fields, "ETag: %s\r\n", tag);
	if (!strcmp(request->known, tag)) {
		leave_file(connection);
		return reply_with(worker, connection, 304, 0, fields);
	}
	connection->offset = 0;
	connection->body_left = size;
	if (request->method == HEAD)
		leave_file(connection);
	if (!request->has_range || request->method == HEAD)
		return reply_with(worker, connection, 200, size, fields);
	if (request->first >= size) {
		leave_file(connection);
		return reply(worker, connection, 416, 0);
	}
	if (request->last >= size)
		request->last = size - 1;
	connection->offset = (off_t)request->first;
	connection->body_left = request->last - request->first + 1;
	snprintf(fields, sizeof fields, "ETag: %s\r\nContent-Range: bytes %ju-%ju/%ju\r\n",
		 tag, (uintmax_t)request->first, (uintmax_t)request->last,
		 (uintmax_t)size);
	return reply_with(worker, connection, 206, connection->body_left, fields);
}

static enum result answer(struct worker *worker, struct connection *connection,
			  struct request *request)
{
	connection->keep_alive = request->keep_alive;
	/* A body that nobody asked for would be taken for the next request. */
	if (request->method != PUT && request->length)
		return refuse(worker, connection, 400);
	switch (request->method) {
	case PUT:
		return put(worker, connection, request);
	case GET:
	case HEAD:
		return get(worker, connection, request);
	case DELETE:
		if (settings.null || unlinkat(settings.root, request->path, 0))
			return reply(worker, connection, 404, 0);
		return reply(worker, connection, 204, 0);
	default:
		return refuse(worker, connection, 405);
	}
}

static enum result read_head(struct worker *worker, struct connection *connection)
{
	struct request request;
	const char *end;
	int wrong;

	/* What came behind the last request may be a head already. */
	while (!(end = memmem(connection->in, connection->have, "\r\n\r\n", 4))) {
		ssize_t came;
		if (connection->have == HEAD_BYTES)
			return refuse(worker, connection, 431);
		came = recv(connection->socket, connection->in + connection->have,
			    HEAD_BYTES - connection->have, 0);
		if (came < 0 && errno == EAGAIN)
			return WAIT;
		if (came <= 0)
			return CLOSE;
		connection->have += (size_t)came;
	}
	wrong = parse(connection->in, end + 2, &request);
	if (wrong)
		return refuse(worker, connection, wrong);
	consume(connection, (size_t)(end + 4 - connection->in));
	return answer(worker, connection, &request);
}

/* One read and write of a body: what came, 0 at its end, or -1 as errno says. */
static ssize_t move_by_read(struct worker *worker, struct connection *connection)
{
	size_t wanted = connection->body_left < CHUNK_BYTES ? connection->body_left
							    : CHUNK_BYTES;
	ssize_t came = recv(connection->socket, worker->chunk, wanted, 0);

	if (came > 0 && !write_all(connection->file, worker->chunk, (size_t)came)) {
		errno = EIO;
		return -1;
	}
	return came;
}

/* The same without a copy into this process; leaves the thread's pipe empty. */
static ssize_t move_by_splice(struct worker *worker, struct connection *connection)
{
	size_t wanted = connection->body_left < PIPE_BYTES ? connection->body_left
							   : PIPE_BYTES;
	ssize_t came = splice(connection->socket, NULL, worker->pipe[1], NULL, wanted,
			      SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

	for (ssize_t rest = came; rest > 0;) {
		ssize_t written = splice(worker->pipe[0], NULL, connection->file, NULL,
					 (size_t)rest, SPLICE_F_MOVE);
		if (written <= 0) /* A baseline: no disk is full here. */
			die("splice to a file");
		rest -= written;
	}
	return came;
}

static enum result read_body(struct worker *worker, struct connection *connection)
{
	for (int turn = 0; turn < TURNS; turn++) {
		ssize_t came = settings.splice ? move_by_splice(worker, connection)
					       : move_by_read(worker, connection);
		if (came < 0 && errno == EAGAIN)
			return WAIT;
		if (came < 0 && errno == EIO)
			return refuse(worker, connection, 500);
		if (came <= 0)
			return CLOSE;
		connection->body_left -= (uint64_t)came;
		if (!connection->body_left)
			return body_complete(worker, connection);
	}
	return WAIT; /* the event comes again at once, after those of others */
}

/* ---- Connections and threads ------------------------------------------- */

static void forget(struct connection *connection)
{
	leave_file(connection);
	close(connection->socket);
	free(connection);
}

static void serve(struct worker *worker, struct connection *connection)
{
	enum result result = GO_ON;

	while (result == GO_ON) {
		switch (connection->state) {
		case READING_HEAD:
			result = read_head(worker, connection);
			break;
		case READING_BODY:
			result = read_body(worker, connection);
			break;
		case SENDING:
			result = send_on(worker, connection);
			break;
		}
	}
	if (result == CLOSE)
		forget(connection);
}

static void accept_all(struct worker *worker)
{
	for (;;) {
		struct epoll_event event = { .events = EPOLLIN };
		struct connection *connection;
		int one = 1;
		int accepted = accept4(worker->listener, NULL, NULL,
				       SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (accepted < 0)
			return;
		/* Not calloc: nobody reads the buffer before it is written. */
		connection = malloc(sizeof *connection);
		if (!connection)
			die("malloc");
		memset(connection, 0, offsetof(struct connection, reply));
		connection->have = 0;
		connection->socket = accepted;
		connection->file = connection->folder = -1;
		connection->state = READING_HEAD;
		setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		event.data.ptr = connection;
		if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, accepted, &event))
			die("epoll_ctl");
	}
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct epoll_event events[EVENTS];

	for (;;) {
		int count = epoll_wait(worker->epoll, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			if (events[i].data.ptr)
				serve(worker, events[i].data.ptr);
			else
				accept_all(worker);
		}
	}
	return NULL;
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int one = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (listener < 0
	    || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one)
	    || setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one)
	    || bind(listener, (struct sockaddr *)&address, sizeof address)
	    || listen(listener, 4096))
		die("listen");
	return listener;
}

static struct worker *make_worker(void)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
	struct worker *worker = malloc(sizeof *worker);

	if (!worker)
		die("malloc");
	worker->listener = listen_on(settings.port);
	worker->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll < 0
	    || epoll_ctl(worker->epoll, EPOLL_CTL_ADD, worker->listener, &event))
		die("epoll");
	if (settings.splice) {
		if (pipe2(worker->pipe, O_CLOEXEC))
			die("pipe");
		/* Smaller where the user has too many of them; it still works. */
		fcntl(worker->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
	}
	return worker;
}

static void usage(void)
{
	fputs("usage: server --port=N [--threads=N] [--put=readwrite|splice] [--sync]"
	      " --root=FOLDER|--null\n", stderr);
	exit(2);
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "threads", required_argument, NULL, 't' },
		{ "put", required_argument, NULL, 'u' },
		{ "sync", no_argument, NULL, 's' },
		{ "root", required_argument, NULL, 'r' },
		{ "null", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			settings.port = (uint16_t)atoi(optarg);
			break;
		case 't':
			settings.threads = atoi(optarg);
			break;
		case 'u':
			settings.splice = !strcmp(optarg, "splice");
			if (!settings.splice && strcmp(optarg, "readwrite"))
				usage();
			break;
		case 's':
			settings.sync = true;
			break;
		case 'r':
			settings.root = open(optarg, O_PATH | O_DIRECTORY | O_CLOEXEC);
			if (settings.root < 0)
				die(optarg);
			break;
		case 'n':
			settings.null = true;
			break;
		default:
			usage();
		}
	}
	if (!settings.port || settings.threads < 1
	    || settings.null == (settings.root >= 0) || optind < argc)
		usage();
}

int main(int argc, char **argv)
{
	pthread_t *threads;

	read_options(argc, argv);
	/* sendfile() knows no MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	threads = calloc((size_t)settings.threads, sizeof *threads);
	if (!threads)
		die("calloc");
	for (int i = 0; i < settings.threads; i++)
		if (pthread_create(&threads[i], NULL, work, make_worker()))
			die("pthread_create");
	puts("serving");
	fflush(stdout);
	for (int i = 0; i < settings.threads; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
