//! Conversations of the daemon with a Forgejo: what a person who pushes, administers or looks at a commit sees. Each is
//! held with the local forge always, and with a real one where `HELIOS_CI_FORGEJO` names its program, so that the one
//! cannot agree to what the other would not.

mod credentials;
mod hooks;
mod moves;
mod outages;
mod pushes;
mod required;
mod server;
mod setup;

/// One conversation as two tests, `on_the_fake` and `on_a_real_one`.
macro_rules! conversation {
    ($name:ident) => {
        mod $name {
            use crate::forgejo::server::{Fake, Forgejo as _, Real};

            #[tokio::test(flavor = "multi_thread")]
            async fn on_the_fake() {
                super::$name(Fake::start().await.expect("it is always there")).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_a_real_one() {
                if let Some(forge) = Real::start().await {
                    super::$name(forge).await;
                }
            }
        }
    };
}
use conversation;
