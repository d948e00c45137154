//! Rows of the fault matrix on real systems, those of the chaos ids on embedded ones too, one seed each, in about eight
//! minutes; `make faults` runs all of them with three seeds.

use std::path::Path;

use tests::faults::{
    row::Row,
    run::{On, run},
};

/// The seed of these tests.
const SEED: u64 = 1;

async fn is_survived(row: Row, on: On) -> anyhow::Result<()> {
    let into = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
    let outcome = Box::pin(run(row, on, SEED, &into)).await?;
    let report = &outcome.report;
    eprintln!("{} seed {SEED}: {:?} {:?} {:?}", row.name(), outcome.evidence, report.counts, report.lag);
    assert!(report.is_accepted(), "{}: {:#?}", outcome.history.display(), report.violations);
    assert!(report.counts.acknowledged > 100, "too few messages to show anything: {:?}", report.counts);
    Ok(())
}

/// One test a row.
macro_rules! rows {
    ($($name:ident => $row:ident on $on:ident;)*) => {$(
        #[tokio::test]
        async fn $name() -> anyhow::Result<()> {
            is_survived(Row::$row, On::$on).await
        }
    )*};
}

rows! {
    row_04_a_last_message_that_only_the_store_has_is_published_by_another_ingest => IngestDiesInSilence on Real;
    row_06_a_fanout_that_dies_is_followed_by_one_that_skips_nothing => FanoutDies on Real;
    row_22_a_lost_answer_of_the_store_is_no_second_message => AnswersLost on Real;
    row_27_a_log_delivered_again_is_seen_once => Replayed on Real;
    row_38_the_clients_of_a_dead_gateway_come_back_at_once => Herd on Real;
    row_39_every_process_may_be_replaced_while_people_write => Rolled on Real;
    chaos_6_2_1_clients_of_a_killed_gateway_lose_nothing => GatewayKilled on Real;
    chaos_6_2_1_clients_of_a_killed_gateway_lose_nothing_embedded => GatewayKilled on Embedded;
    chaos_6_2_2_without_the_log_messages_are_stored_and_come_later => LogAway on Real;
    chaos_6_2_2_without_the_log_messages_are_stored_and_come_later_embedded => LogAway on Embedded;
    chaos_6_2_3_what_redis_forgets_is_known_again => RedisWiped on Real;
    chaos_6_2_3_what_redis_forgets_is_known_again_embedded => RedisWiped on Embedded;
    chaos_6_2_4_a_store_that_throttles_loses_nothing => Throttled on Real;
    chaos_6_2_4_a_store_that_throttles_loses_nothing_embedded => Throttled on Embedded;
    chaos_6_2_5_gateways_parted_from_ingest_say_so_and_store_once => IngestParted on Real;
    chaos_6_2_5_gateways_parted_from_ingest_say_so_and_store_once_embedded => IngestParted on Embedded;
}
