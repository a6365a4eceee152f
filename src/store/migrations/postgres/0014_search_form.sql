-- Which form the entries of the index have. There is no default: a node of an earlier build that still runs would
-- add entries of the former form, and without this column it cannot. A node of this build indexes its messages.
alter table searchable add column form smallint not null default 2;
alter table searchable alter column form drop default;
