alter table messages add column edited_at integer;  -- when its text was last changed
alter table messages add column deleted_at integer; -- since when its text is hidden
