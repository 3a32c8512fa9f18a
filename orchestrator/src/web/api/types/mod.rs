//! What the JSON API answers and takes, as types that the daemon writes and the command line reads: one shape, one place.
//!
//! Their JSON schema is committed (`docs/api.schema.json`) and a test compares the two, so no field comes, goes or
//! changes unseen. Fields may be added; one that is removed or means something else needs an `/api/v2`. Readers ignore
//! fields that they do not know. Moments are RFC 3339 in UTC with milliseconds.

mod build;
mod delivery;
mod failure;
mod machine;
mod run;
mod status;
mod stream;

pub use self::{build::*, delivery::*, failure::*, machine::*, run::*, status::*, stream::*};

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, generate::SchemaSettings};

    use super::*;
    use crate::model::ids::{JobId, RunId};

    /// The schema of every body of the API, by its name.
    fn schema() -> String {
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Bodies {
            run_list: RunList,
            run: RunDetail,
            job: JobDetail,
            why: Why,
            create_build: CreateBuild,
            build_created: BuildCreated,
            build: Build,
            delivery_list: DeliveryList,
            missed_list: MissedList,
            catch_up: CatchUp,
            cancelled_run: Cancelled<RunId>,
            cancelled_job: Cancelled<JobId>,
            cancelled_build: BuildRuns<CancelledRun>,
            rerun_body: RerunBody,
            rerun: Rerun,
            rerun_build: BuildRuns<StartedRun>,
            machine_list: MachineList,
            machine: Machine,
            keep_body: KeepBody,
            kept: Kept,
            released: Released,
            console_read: ConsoleRead,
            console_typed: ConsoleTyped,
            status: Status,
            log_record: LogRecord,
            resync: Resync,
            log_end: LogEnd,
            failure: Failure,
        }
        let schema = SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<Bodies>();
        format!("{:#}\n", schema.to_value())
    }

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.schema.json");
        let now = schema();
        if std::env::var_os("HELIOS_BLESS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == now,
            "the API's types are no longer those of docs/api.schema.json; a field that only came is blessed by \
             HELIOS_BLESS=1 cargo test -p helios-ci --lib web::api"
        );
    }
}
