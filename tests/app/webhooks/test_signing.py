"""Signatures: the standard's own library takes them, and the specification's example."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.signing import MAX_SECRETS, Secret, headers, live, new_secret, rotated

MOMENT = datetime(2026, 5, 6, 7, 8, 9, 900_000, tzinfo=UTC)
DAY = timedelta(hours=24)


def test_the_librarys_own_example_has_the_signature_that_it_documents() -> None:
    signing = [Secret(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    moment = datetime.fromtimestamp(1614265330, UTC)
    made = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", moment, '{"test": 2432232314}', signing)
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secrets_are_256_bits_in_the_standards_form() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.b64decode(each.removeprefix("whsec_"))) == 32 for each in made)


def test_a_replaced_secret_signs_for_a_day_beside_the_new_one() -> None:
    old, new = new_secret(), new_secret()
    rows = rotated(rotated([], old, MOMENT), new, MOMENT)
    now = datetime.now(UTC)
    for secret in (old, new):
        made = headers("msg_1", now, "{}", live(rows, MOMENT + DAY - timedelta(seconds=1)))
        assert Webhook(secret).verify("{}", made) == {}
    made = headers("msg_1", now, "{}", live(rows, MOMENT + DAY))
    assert Webhook(new).verify("{}", made) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook(old).verify("{}", made)


def test_a_rotation_right_behind_another_leaves_the_first_its_day() -> None:
    rows = rotated([], "whsec_YQ==", MOMENT)
    for number, name in enumerate(("Yg==", "Yw==")):
        rows = rotated(rows, f"whsec_{name}", MOMENT + number * timedelta(hours=1))
    assert [each.secret[6] + each.secret[7] for each in live(rows, MOMENT)] == ["Yw", "Yg", "YQ"]
    assert [each.until for each in live(rows, MOMENT)] == [
        None,
        MOMENT + DAY + timedelta(hours=1),
        MOMENT + DAY,
    ]


def test_rotating_on_and_on_doesnt_make_signatures_without_end() -> None:
    rows = rotated([], new_secret(), MOMENT)
    for _ in range(10):
        rows = rotated(rows, new_secret(), MOMENT)
    assert len(live(rows, MOMENT)) == MAX_SECRETS


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "body"])
def test_nothing_that_is_signed_can_be_changed(name: str) -> None:
    secret = new_secret()
    made = {**headers("msg_1", datetime.now(UTC), "{}", [Secret(secret=secret)]), "body": "{}"}
    changed = {"webhook-id": "msg_2", "body": "[]"}
    changed["webhook-timestamp"] = str(int(made["webhook-timestamp"]) + 1)
    made[name] = changed[name]
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(made.pop("body"), made)


def test_a_secret_isnt_in_what_a_log_would_show() -> None:
    assert "YQ" not in repr(Secret(secret="whsec_YQ=="))
