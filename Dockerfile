# Relay in a container: `docker build -t relay .`
#
#   docker run --init -v relay:/data -p 8080:8080 relay
#
# With the client of PostgreSQL, for [ledger]: `docker build --build-arg EXTRAS=cluster -t relay .`
#
# /data holds relay.toml, the database and backups. Without a relay.toml it serves nothing: copy
# /usr/share/relay/relay.toml there, and let it listen on 0.0.0.0:8080.
FROM python:3.13-slim AS build
WORKDIR /src
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential
COPY requirements.lock requirements-cluster.lock requirements-compile.lock pyproject.toml README.md LICENSE relay.toml ./
COPY deploy/compile.py deploy/prefix.py ./deploy/
COPY relay ./relay
ARG EXTRAS=
RUN python deploy/prefix.py /opt/relay ${EXTRAS:+--extras "$EXTRAS"}

FROM python:3.13-slim
RUN groupadd --gid 10001 relay \
    && useradd --uid 10001 --gid relay --no-create-home --home-dir /data --shell /usr/sbin/nologin relay \
    && install --directory --owner=relay --group=relay --mode=0750 /data
COPY --from=build /opt/relay /opt/relay
COPY relay.toml /usr/share/relay/relay.toml
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    RELAY_HEALTH_URL=http://127.0.0.1:8080/healthz
USER relay
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['RELAY_HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["relay"]
CMD ["serve", "--config", "/data/relay.toml"]
