//! The API that users write YAML against: `MessagingCluster`, its status, and the rules of the schema.
