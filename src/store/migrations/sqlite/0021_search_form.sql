-- Which form the entries of the index have. PostgreSQL needs it, where nodes of two builds may run.
alter table searchable add column form integer not null default 2;
