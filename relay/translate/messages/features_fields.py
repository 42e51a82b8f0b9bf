"""The members of a request that ask for a feature, as msgspec reads them."""

import msgspec


class FeatureFields(msgspec.Struct):
    """The members, as octets: each may have any type."""

    speed: msgspec.Raw = msgspec.Raw()
    inference_geo: msgspec.Raw = msgspec.Raw()
    service_tier: msgspec.Raw = msgspec.Raw()
    thread: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()
    fallbacks: msgspec.Raw = msgspec.Raw()
    compaction: msgspec.Raw = msgspec.Raw()
    web_search_options: msgspec.Raw = msgspec.Raw()
