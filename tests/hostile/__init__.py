"""Files made to do harm: each must open or be refused, with nothing run and nothing imported."""
