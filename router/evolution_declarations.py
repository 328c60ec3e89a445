"""Evolution declarations: the settings of WhatsApp sends and of what Evolution API tells."""

from __future__ import annotations

from router import setting, values
from router.setting import TTL_S_MAX, Setting

EVOLUTION_SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="EVOLUTION_API_URL",
        field="evolution_url",
        default="http://localhost:8080",
        parse=values.base_url,
        secret=True,
        meaning="Where Evolution API is. It may be in a private network; only webhooks are kept out of those.",
    ),
    Setting(
        name="EVOLUTION_API_KEY",
        field="evolution_api_key",
        parse=values.secret,
        show=setting.hidden,
        secret=True,
        meaning="What Evolution knows this service by: its global key, or an instance's token.",
    ),
    Setting(
        name="EVOLUTION_INSTANCE_NAME",
        field="evolution_instance",
        default="default",
        parse=values.instance,
        meaning="The instance that sends when a request names none.",
    ),
    Setting(
        name="EVOLUTION_TIMEOUT",
        field="evolution_timeout_s",
        default="1m",
        parse=values.duration_s(0.1, 600),
        show=setting.duration,
        meaning="How long one send may take. Less than Evolution may need makes doubtful sends of slow ones.",
    ),
    Setting(
        name="EVOLUTION_ON_UNKNOWN",
        field="evolution_on_unknown",
        default="retry",
        parse=values.choice("retry", "dead"),
        meaning="A send of which nobody knows whether it was made, by a version that takes no message id of ours: "
        "`retry` may send twice, `dead` may not send at all.",
    ),
    Setting(
        name="EVOLUTION_RATE",
        field="evolution_every_s",
        default="none",
        parse=values.rate,
        show=setting.rate,
        meaning="How many messages one instance may send, such as `20/m`; `none`: as fast as it goes.",
    ),
    Setting(
        name="EVOLUTION_GAP",
        field="evolution_gap_s",
        parse=values.span_s(0, 3600),
        show=setting.span,
        meaning="A random gap between two messages of an instance, such as `1s-3s`; they are then sent one by one.",
    ),
    Setting(
        name="EVOLUTION_WEBHOOK_TOKEN",
        field="evolution_webhook_token",
        parse=values.secret,
        show=setting.hidden,
        secret=True,
        meaning="What Evolution API shows at `/evolution/webhook`, for instances whose route has no token of its own; "
        "without either the webhook is open, or with `SECRET_KEY` shut.",
    ),
    Setting(
        name="TASK_RETRY_DELAY",
        field="task_retry_delay_s",
        default="5s",
        parse=values.duration_s(0.001, 3600),
        show=setting.duration,
        meaning="Wait before each retry of a send; there are up to `MAX_RETRIES`.",
    ),
    Setting(
        name="RESULT_TTL",
        field="result_ttl_s",
        default="24h",
        parse=values.duration_s(1, TTL_S_MAX),
        show=setting.duration,
        meaning="How long a task can be looked up after it has ended.",
    ),
)
