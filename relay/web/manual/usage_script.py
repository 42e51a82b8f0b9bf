"""The script by which CC Switch shows the limits of a key."""

from typing import Final

# CC Switch runs this to show a key's limits; it shows it before it imports anything. Its manual has
# the names: 2.5 "Usage Query", 5.3 "Deep Link Protocol".
USAGE_SCRIPT: Final = """({
  request: {
    url: "{{baseUrl}}/v1/usage",
    method: "GET",
    headers: { "Authorization": "Bearer {{apiKey}}" }
  },
  extractor: function (usage) {
    if (usage.error) return { isValid: false, invalidMessage: usage.error.message };
    var rows = usage.limits.map(function (limit) {
      return {
        planName: limit.name, remaining: limit.remaining, used: limit.used, total: limit.limit,
        unit: limit.kind
      };
    });
    if (usage.balance_usd !== null) {
      rows.push({ planName: usage.plan, remaining: Number(usage.balance_usd), unit: "USD" });
    }
    return rows.length ? rows : { isValid: true, planName: usage.plan };
  }
})
"""
