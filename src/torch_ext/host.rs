//! What processes tell each other beside tensors.

use super::{Group, GroupError};
use tch::{Kind, Tensor};

impl Group {
    /// Whether any process says so.
    pub fn any(&self, mine: bool) -> Result<bool, GroupError> {
        let said = Tensor::from_slice(&[i64::from(mine)]);
        self.sum(&said)?;
        Ok(said.int64_value(&[0]) > 0)
    }

    /// The bytes of rank 0; those of the others are ignored.
    pub fn share(&self, mine: &[u8]) -> Result<Vec<u8>, GroupError> {
        let len = Tensor::from_slice(&[mine.len() as i64]);
        self.broadcast(&len)?;
        let len = len.int64_value(&[0]);
        if len == 0 {
            return Ok(Vec::new());
        }
        let bytes = if self.leads() {
            Tensor::from_slice(mine)
        } else {
            Tensor::zeros([len], (Kind::Uint8, tch::Device::Cpu))
        };
        self.broadcast(&bytes)?;
        bytes_of(&bytes)
    }

    /// The bytes of all processes, by rank.
    pub fn gather_bytes(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, GroupError> {
        let lens = self.gather(&Tensor::from_slice(&[mine.len() as i64]))?.view([-1]);
        let longest = lens.max().int64_value(&[]);
        let mut padded = mine.to_vec();
        padded.resize(longest.max(1) as usize, 0);
        let all = self.gather(&Tensor::from_slice(&padded))?;
        let of_rank = |rank: i64| bytes_of(&all.get(rank).narrow(0, 0, lens.int64_value(&[rank])));
        (0..i64::from(self.world())).map(of_rank).collect()
    }

    /// Refuses where processes have different texts; `what` names them.
    pub fn agree(&self, what: &str, mine: &str) -> Result<(), GroupError> {
        let all = self.gather_bytes(mine.as_bytes())?;
        match all.iter().position(|text| *text != all[0]) {
            None => Ok(()),
            Some(rank) => Err(GroupError::Apart(format!(
                "processes 0 and {rank} of this training have different {what}; give all of them the same"
            ))),
        }
    }

    /// Returns when all processes are here.
    pub fn meet(&self) -> Result<(), GroupError> {
        self.any(false).map(drop)
    }
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, GroupError> {
    let mut bytes = vec![0; tensor.numel()];
    let copied = tensor.contiguous().f_copy_data_u8(&mut bytes, tensor.numel());
    copied.map_err(|e| GroupError::Lost(e.to_string()))?;
    Ok(bytes)
}
