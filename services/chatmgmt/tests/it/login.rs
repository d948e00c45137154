//! From a phone number to a session.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, device, other, phone};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_new_phone_is_registered_and_a_known_one_logs_in() {
    let world = World::lenient().await;
    let (phone, device) = (phone(), device());

    let asked = world.post("/api/v1/auth/request-otp", json!({"phone_number": phone})).await;
    let golden = json!({"data": {
        "phone_number": phone, "expires_at": world.in_time(5 * MINUTE), "retry_after_seconds": 60,
    }});
    assert_eq!((asked.status, &asked.body), (200, &golden));

    let code = world.code(&phone).await;
    let first = world.verify(&phone, &code, &device).await;
    let data = &first.body["data"];
    let golden = json!({"data": {
        "user": {
            "user_id": data["user"]["user_id"], "phone_number": phone, "display_name": null, "created_at": world.now(),
        },
        "session": {
            "session_id": data["session"]["session_id"], "device_id": device,
            "created_at": world.now(), "expires_at": world.in_time(30 * 24 * 60 * MINUTE),
        },
        "tokens": {
            "access_token": data["tokens"]["access_token"], "refresh_token": data["tokens"]["refresh_token"],
            "token_type": "Bearer", "expires_in": 3600,
        },
        "is_new_user": true,
    }});
    assert_eq!((first.status, &first.body), (201, &golden));
    assert!(data["user"]["user_id"].as_str().expect("a text").starts_with("user_"));
    assert!(data["session"]["session_id"].as_str().expect("a text").starts_with("sess_"));
    assert_eq!(data["tokens"]["refresh_token"].as_str().expect("a text").len(), 43);

    let code = world.code(&phone).await;
    let again = world.verify(&phone, &code, &device).await;
    assert_eq!((again.status, &again.body["data"]["is_new_user"]), (200, &json!(false)));
    assert_eq!(again.body["data"]["user"]["user_id"], data["user"]["user_id"]);
    assert_ne!(again.body["data"]["session"]["session_id"], data["session"]["session_id"]);
}

#[tokio::test]
async fn asking_again_sends_the_same_code_with_the_time_it_has_left() {
    let world = World::start().await;
    let phone = phone();
    let code = world.code(&phone).await;
    let expires_at = world.in_time(5 * MINUTE);
    world.clock.advance(MINUTE);
    assert_eq!(world.code(&phone).await, code);
    let asked = world.post("/api/v1/auth/request-otp", json!({"phone_number": phone})).await;
    assert_eq!(asked.body["data"]["expires_at"], expires_at);

    let limited = world.post("/api/v1/auth/request-otp", json!({"phone_number": phone})).await;
    assert_eq!((limited.status, limited.code()), (429, "RATE_LIMITED"));
    let details = &limited.body["error"]["details"];
    assert_eq!((&details["limit"], &details["window_seconds"]), (&json!(3), &json!(900)));
    assert_eq!(limited.header("retry-after"), details["retry_after_seconds"].to_string());
}

#[tokio::test]
async fn five_wrong_codes_lock_the_phone_out() {
    let world = World::start().await;
    let (phone, device) = (phone(), device());
    let code = world.code(&phone).await;
    for _ in 0..5 {
        let refused = world.verify(&phone, &other(&code), &device).await;
        assert_eq!((refused.status, refused.code()), (401, "INVALID_OTP"));
    }
    let locked = world.verify(&phone, &code, &device).await;
    assert_eq!((locked.status, locked.code()), (429, "RATE_LIMITED"));
    let wait: u32 = locked.header("retry-after").parse().expect("seconds");
    assert!((890..=900).contains(&wait), "{wait}");
}

#[tokio::test]
async fn the_last_attempt_may_be_right() {
    let world = World::start().await;
    let (phone, device) = (phone(), device());
    let code = world.code(&phone).await;
    for _ in 0..4 {
        assert_eq!(world.verify(&phone, &other(&code), &device).await.status, 401);
    }
    assert_eq!(world.verify(&phone, &code, &device).await.status, 201);
}

#[tokio::test]
async fn parallel_guesses_are_compared_no_more_often_than_the_limit() {
    let world = World::lenient().await;
    let (phone, device) = (phone(), device());
    let code = world.code(&phone).await;
    let wrong = other(&code);
    let guesses = (0..40).map(|_| world.verify(&phone, &wrong, &device));
    let statuses: Vec<u16> =
        futures_util::future::join_all(guesses).await.into_iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 35, "{statuses:?}");
    assert_eq!(world.verify(&phone, &code, &device).await.status, 429);
}

#[tokio::test]
async fn a_code_lasts_five_minutes() {
    let world = World::lenient().await;
    let (phone, device) = (phone(), device());
    let code = world.code(&phone).await;
    world.clock.advance(5 * MINUTE);
    let late = world.verify(&phone, &code, &device).await;
    assert_eq!((late.status, late.code()), (401, "INVALID_OTP"));
    let code = world.code(&phone).await;
    assert_eq!(world.verify(&phone, &code, &device).await.status, 201);
}

#[tokio::test]
async fn a_used_code_never_logs_in_again_and_an_unknown_phone_answers_alike() {
    let world = World::lenient().await;
    let (known, device) = (phone(), device());
    let code = world.code(&known).await;
    assert_eq!(world.verify(&known, &code, &device).await.status, 201);
    let again = world.verify(&known, &code, &device).await;
    let unknown = world.verify(&phone(), &code, &device).await;
    for answer in [again, unknown] {
        assert_eq!((answer.status, answer.code()), (401, "INVALID_OTP"));
    }
}

#[tokio::test]
async fn one_code_makes_one_session_however_many_ask_at_once() {
    let world = World::lenient().await;
    let (phone, device) = (phone(), device());
    let code = world.code(&phone).await;
    let tries = (0..4).map(|_| world.verify(&phone, &code, &device));
    let mut answers = futures_util::future::join_all(tries).await;
    answers.sort_by_key(|answer| answer.status);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 401, 401, 401]);
}

#[tokio::test]
async fn header_and_body_must_name_one_device() {
    let world = World::start().await;
    let phone = phone();
    let body = json!({"phone_number": phone, "otp": "123456", "device_id": device()});
    let without = world.post("/api/v1/auth/verify-otp", body.clone()).await;
    assert_eq!((without.status, without.code()), (400, "VALIDATION_ERROR"));
    assert_eq!(without.body["error"]["details"]["field_errors"][0]["field"], "X-Device-ID");
    let request = world.request(reqwest::Method::POST, "/api/v1/auth/verify-otp").header("x-device-id", device());
    let other = crate::world::Answer::of(request.json(&body).send().await.expect("an answer")).await;
    assert_eq!((other.status, other.code()), (400, "VALIDATION_ERROR"));
    assert_eq!(other.body["error"]["details"]["field_errors"][0]["code"], "MISMATCH");
}

#[tokio::test]
async fn a_device_has_one_session_and_a_user_five() {
    let world = World::lenient().await;
    let (phone, first_device) = (phone(), device());
    let replaced = world.login(&phone, &first_device).await;
    world.clock.advance(MINUTE);
    let oldest = world.login(&phone, &first_device).await;
    assert_eq!(world.get(&replaced, "/api/v1/users/me").await.status, 401);
    assert_eq!(world.get(&oldest, "/api/v1/users/me").await.status, 200);

    let mut later = Vec::new();
    for _ in 0..5 {
        world.clock.advance(MINUTE);
        later.push(world.login(&phone, &device()).await);
    }
    assert_eq!(world.get(&oldest, "/api/v1/users/me").await.status, 401);
    assert_eq!(world.refresh(&oldest).await.status, 401);
    for login in &later {
        assert_eq!(world.get(login, "/api/v1/users/me").await.status, 200);
    }
}

#[tokio::test]
async fn without_the_cache_nobody_logs_in_or_is_let_in() {
    let mut world = World::lenient().await;
    let (phone, device) = (phone(), device());
    let login = world.login(&phone, &device).await;
    let code = world.code(&phone).await;
    world.take_the_cache_away().await;
    for answer in [
        world.post("/api/v1/auth/request-otp", json!({"phone_number": phone})).await,
        world.verify(&phone, &code, &device).await,
        world.get(&login, "/api/v1/users/me").await,
    ] {
        assert_eq!((answer.status, answer.code()), (503, "SERVICE_UNAVAILABLE"));
    }
}
