# kvd in a container: docs/running.rst says how to run it.

FROM python:3.11-slim-bookworm AS build
COPY . /src
# The compiler is for kvd's own C; the image that is run has none.
# Whatever version the base image's release has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /opt/kvd \
    && /opt/kvd/bin/pip install --no-cache-dir '/src[status]' \
    && /opt/kvd/bin/python -c "from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))"

FROM python:3.11-slim-bookworm
# Process 1 inherits the workers of a fork server that has died, and only tini waits for them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/kvd /opt/kvd
RUN install --directory --owner=10001 --group=10001 /values /run/kvd
USER 10001:10001
ENV PATH=/opt/kvd/bin:$PATH KVD_CONTROL=/run/kvd/8080.control
VOLUME ["/values", "/run/kvd"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["kvd", "status", "--json"]
# An end by SIGTERM (143) is one in order.
# Options that follow the image's name count too. Among them may be another --store, and two would
# be refused: without one, the values are in ./values.
WORKDIR /
ENTRYPOINT ["tini", "-e", "143", "--", "twistd", "-n", "--pidfile=", "kvd", "--listen", "tcp:8080", "--control", "/run/kvd/8080.control"]
