-- Without its pin an adapter follows its job. One that is named by uri has no job to follow.
for _, adapter in ipairs(obj.spec.adapters or {}) do
  if adapter.fineTuneJob ~= nil then
    adapter.digest = nil
  end
end
return obj
