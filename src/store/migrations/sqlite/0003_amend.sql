alter table messages add column edited_at integer;  -- when its text was changed last
alter table messages add column deleted_at integer; -- since then its text is shown to nobody
