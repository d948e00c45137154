//! Where a contract is tried: on what `embedded` starts, and on the real systems.

/// Where a test runs; the cache is a real `redis-server` everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    /// What `embedded` starts.
    Embedded,
    /// Apache Kafka and DynamoDB Local.
    Real,
}

/// Makes each of these functions a test on the embedded and on the real systems.
macro_rules! on_all_systems {
    ($($name:ident),+ $(,)?) => {
        mod on_embedded_systems {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::on::On::Embedded)).await;
            })+
        }
        mod on_real_systems {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                Box::pin(super::$name(crate::on::On::Real)).await;
            })+
        }
    };
}
